"""Sessions of the shared daemon, and of daemons that a test may kill."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helper import Home, Store, a_home
from tests.shim.client import Client, a_session

# Opens a session by that name, or by its folder's name if `named` is false; it ends with the test.
Open = Callable[..., Client]


def opener(home: Home, folder: Path, stack: contextlib.ExitStack) -> Open:
    def open_session(name: str, *, named: bool = True, **options: Any) -> Client:
        if named:
            options.setdefault("AGENT_MESH_NAME", name)
        return stack.enter_context(a_session(home, folder / name, **options))

    return open_session


@pytest.fixture
def session(mesh: Home, tmp_path: Path) -> Iterator[Open]:
    """Opens sessions of the daemon that all tests share."""
    with contextlib.ExitStack() as stack:
        yield opener(mesh, tmp_path, stack)


@pytest.fixture
def own(tmp_path: Path, mesh_store: Store, prefix: str) -> Iterator[Home]:
    """A user whose daemon the test may kill; it is not started yet."""
    with a_home(tmp_path / "own", mesh_store.url, AGENT_MESH_PREFIX=prefix) as home:
        yield home


@pytest.fixture
def own_session(own: Home, tmp_path: Path) -> Iterator[Open]:
    """Opens sessions of `own`."""
    with contextlib.ExitStack() as stack:
        yield opener(own, tmp_path, stack)


@pytest.fixture
def elsewhere(tmp_path: Path, mesh_store: Store, prefix: str) -> Iterator[Home]:
    """A second user, as on another machine: the same store and prefix as `own`."""
    with a_home(tmp_path / "elsewhere", mesh_store.url, AGENT_MESH_PREFIX=prefix) as home:
        yield home
