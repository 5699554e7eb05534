"""One long-lived daemon for everything that does not need one of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.helper import Home, Store, a_home, program


@pytest.fixture(scope="session")
def mesh_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The store of `mesh`."""
    store = Store(program("valkey"), tmp_path_factory.mktemp("control-store"))
    yield store
    store.close()


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, mesh_store: Store) -> Iterator[Home]:
    """A running daemon that the tests of this folder share. They leave it running, and use names of their own."""
    with a_home(tmp_path_factory.mktemp("control") / "home", mesh_store.url) as home:
        home.start()
        yield home


@pytest.fixture
def name() -> str:
    """An agent's name that no other test uses."""
    return f"a{secrets.token_hex(4)}"


@pytest.fixture
def peer() -> str:
    """A second such name."""
    return f"p{secrets.token_hex(4)}"
