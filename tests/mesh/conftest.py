"""A 0.1 program beside the daemons."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helper import Store
from tests.mesh.peer import Peer


@pytest.fixture
def peer(server: Store, prefix: str) -> Iterator[Peer]:
    made = Peer(server, prefix)
    yield made
    made.close()
