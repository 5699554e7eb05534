"""Fixtures: a home with a user manager of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helper import Home, Store
from tests.service.user_manager import UserManager, a_manager, a_served_home


@pytest.fixture
def served(tmp_path: Path, mesh_store: Store, prefix: str) -> Iterator[Home]:
    with a_served_home(tmp_path / "home", mesh_store, prefix) as home:
        yield home


@pytest.fixture
def manager(served: Home) -> Iterator[UserManager]:
    with a_manager(served) as made:
        yield made
