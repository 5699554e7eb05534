"""Fixtures: a home with a user manager of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helper import Home, Store, a_home
from tests.service.user_manager import UserManager, why_not


@pytest.fixture
def served(tmp_path: Path, mesh_store: Store, prefix: str) -> Iterator[Home]:
    """A home whose configuration names the store: a service does not see the variables of a shell."""
    with a_home(tmp_path / "home") as home:
        home.config.parent.mkdir(parents=True)
        home.config.write_text(f'redis_url = "{mesh_store.url}"\nprefix = "{prefix}"\n')
        yield home


@pytest.fixture
def manager(served: Home) -> Iterator[UserManager]:
    """A running `systemd --user` for that home. Skips with the reason where there can be none."""
    if reason := why_not():
        pytest.skip(reason)
    with UserManager(served) as made:
        path = os.environ.get("PYTHONPATH")
        made.drop_in(*([f"Environment=PYTHONPATH={path}"] if path else []))
        yield made
