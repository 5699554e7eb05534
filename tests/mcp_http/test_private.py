"""What we lean on that others keep to themselves: if one of these fails, their new version is not for us as we are."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn
from mcp.server.connection import Connection
from mcp.server.session import ServerSession
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from meshd.mcp.http import serve
from meshd.mcp.http.response import TRANSPORT
from tests.helper import eventually


class _Quiet(uvicorn.Server):
    """Leaves the signals of this process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Served:
    """An application that remembers the transport which each request's scope names."""

    def __init__(self) -> None:
        self.transports: list[asyncio.Transport] = []
        self.port = 0

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.transports.append(scope["state"][TRANSPORT])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    config = uvicorn.Config(
        made.app, port=0, http=serve._Protocol, ws="none", lifespan="off", log_config=None, interface="asgi3"
    )
    server = _Quiet(config)
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "it serves")
    made.port = server.servers[0].sockets[0].getsockname()[1]
    yield made
    server.should_exit = True
    await running


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    return await reader.readuntil(b"\r\n\r\n")


async def test_each_request_is_told_its_own_connection_which_keeps_nothing_back(served: Served) -> None:
    """What became of a response is read from that connection: another one's, or a buffer, would tell of other bytes."""
    ours: list[Any] = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        assert (await ask(reader, writer)).startswith(b"HTTP/1.1 204")
        assert (await ask(reader, writer)).startswith(b"HTTP/1.1 204")
        ours.append(writer)
    told = served.transports
    assert told[0] is told[1] is not told[2] is told[3]
    for transport, writer in zip((told[0], told[2]), ours, strict=True):
        assert transport.get_extra_info("peername") == writer.get_extra_info("sockname")
        assert transport.get_write_buffer_limits() == (0, 0)
        writer.close()
        await writer.wait_closed()


async def test_a_connection_that_asks_nothing_is_ended_and_one_that_has_asked_is_not(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "FIRST_REQUEST", 0.1)
    asking = await asyncio.open_connection("127.0.0.1", served.port)
    await ask(*asking)
    silent, closing = await asyncio.open_connection("127.0.0.1", served.port)
    with contextlib.suppress(ConnectionResetError):
        assert await silent.read() == b""
    assert (await ask(*asking)).startswith(b"HTTP/1.1 204")
    for writer in (asking[1], closing):
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


def test_what_is_derived_from_uvicorn_overrides_what_is_there() -> None:
    for base, names in (
        (H11Protocol, ["connection_made"]),
        (uvicorn.Server, ["startup", "shutdown", "capture_signals", "handle_exit"]),
    ):
        assert [name for name in names if not callable(getattr(base, name, None))] == []
    assert "sockets" in inspect.signature(uvicorn.Server.startup).parameters
    assert "sockets" in inspect.signature(uvicorn.Server.shutdown).parameters


def test_the_sdk_s_session_has_the_connection_that_its_middleware_is_meant_to_use() -> None:
    """It is kept in an attribute that is private for now (routing.py)."""
    assert "_connection" in inspect.getsource(ServerSession.__init__)
    nobody: Any = None
    assert {"state", "exit_stack", "session_id"} <= set(vars(Connection(nobody, protocol_version="")))
