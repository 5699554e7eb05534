"""Sessions of the shared daemon, and of daemons that a test may kill."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helper import Home, Store, a_home
from tests.wake.claude import Claude, Events, InboxSocket, an_inbox

# Begins a session by that name; it ends with the test.
Begin = Callable[..., Claude]


def beginner(home: Home, folder: Path, stack: contextlib.ExitStack) -> Begin:
    def begin(name: str, **options: Any) -> Claude:
        session = Claude(home, folder / name, name, **options)
        stack.callback(session.close)
        return session

    return begin


@pytest.fixture
def begin(mesh: Home, tmp_path: Path) -> Iterator[Begin]:
    """Begins sessions of the daemon that all tests share."""
    with contextlib.ExitStack() as stack:
        yield beginner(mesh, tmp_path, stack)


@pytest.fixture
def bob(begin: Begin, name: str) -> Claude:
    """A session with hooks and nothing else."""
    return begin(name)


@pytest.fixture
def inbox() -> Iterator[InboxSocket]:
    with an_inbox() as made:
        yield made


@pytest.fixture
def events(mesh: Home) -> Iterator[Events]:
    with contextlib.closing(Events(mesh)) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path, mesh_store: Store, prefix: str) -> Iterator[Home]:
    """A user whose daemon the test may kill; it is not started yet."""
    with a_home(tmp_path / "own", mesh_store.url, AGENT_MESH_PREFIX=prefix) as home:
        yield home


@pytest.fixture
def own_begin(own: Home, tmp_path: Path) -> Iterator[Begin]:
    """Begins sessions of `own`."""
    with contextlib.ExitStack() as stack:
        yield beginner(own, tmp_path, stack)
