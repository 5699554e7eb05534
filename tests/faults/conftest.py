"""Fixtures: two machines on a store of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.machines import Machine, clock_library
from tests.helper import Store
from tests.store.servers import a_store


class Two(NamedTuple):
    """`b` is the one to which things happen."""

    a: Machine
    b: Machine
    store: Store


@contextlib.contextmanager
def _two(folder: Path, clock: Path | None) -> Iterator[Two]:
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(a_store("redis", folder / "store"))
        a, b = Machine("a", folder / "a", store), Machine("b", folder / "b", store, clock)
        stack.callback(b.close)
        stack.callback(a.close)
        for machine in (a, b):
            machine.home.start()
        yield Two(a, b, store)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    with _two(tmp_path, None) as made:
        yield made


@pytest.fixture
def two_with_clock(tmp_path: Path) -> Iterator[Two]:
    """Machine b can be asleep for as long as a test wants."""
    with _two(tmp_path, clock_library(tmp_path)) as made:
        yield made
