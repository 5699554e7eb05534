"""A server that many tests share, and servers of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helper import Home, Store, a_home
from tests.mcp_http.serving import HANDSHAKE, MODERN, SSE, Http, serving


@pytest.fixture(scope="session")
def http(mesh: Home) -> Iterator[Http]:
    """An HTTP server beside the daemon that all tests share."""
    with serving(mesh) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path, mesh_store: Store, prefix: str) -> Iterator[Home]:
    """A user whose daemon the test may kill; it is not started yet."""
    with a_home(tmp_path / "own", mesh_store.url, AGENT_MESH_PREFIX=prefix) as home:
        yield home


@pytest.fixture(params=[HANDSHAKE, MODERN, SSE])
def transport(request: pytest.FixtureRequest) -> str:
    """Each way in which a client may speak to the server."""
    return str(request.param)
