"""Fixtures: a daemon in this process, on a store that these tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helper import Store
from tests.receiving.daemon import Daemon, a_daemon


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """What is tested is on this side of the store: one kind of it is enough."""
    return mesh_store


@pytest.fixture
async def daemon(tmp_path: Path, server: Store, prefix: str) -> AsyncIterator[Daemon]:
    async with a_daemon(tmp_path, server, prefix) as made:
        yield made
