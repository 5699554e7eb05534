"""From a request of MCP to the agent that makes it: by its session, or by the name that the request gives.

Requests of a session (the handshake's versions of MCP, and SSE) belong to one agent with a line of its own, from
`initialize` to the session's end. Since 2026-07-28 each request stands alone: it says who speaks by the tool's own
parameter or the header Agent-Mesh-Name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request

from meshd.core.text import cut, one_line
from meshd.errors import MeshError, NotAllowed
from meshd.mcp.http.agents import AgentLines
from meshd.mcp.http.daemon_connection import Daemon, Line
from meshd.mcp.http.guard import name_of
from meshd.mcp.http.presence import Attendance
from meshd.mcp.http.response import EXCHANGE, Exchange
from meshd.mcp.http.tool_calls import LoneCall, SessionCall
from meshd.mcp.session import Caller, Context
from meshd.mcp.tools import instructions

# Seconds that `initialize` waits for the session's name; it is found later if need be.
GREETING = 2.0
# A client's own id for a request: one that it repeats is carried out once.
ID_KEY = "agent-mesh/id"
_LINE = "agent-mesh.line"
_NOBODY = "nobody yet: give your name (name, from_agent) in each call"


class Front:
    """What the SDK's server is given as its state, for `/mcp`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._names = AgentLines(daemon)
        self.attendance = Attendance()
        self.sessions: Counter[str] = Counter()

    async def of(self, ctx: Context) -> Caller:
        request = _request(ctx)
        exchange: Exchange = request.scope[EXCHANGE]
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            line = await self.line(ctx, "streamable", name_of(request))
            return SessionCall(line, line.key, exchange)
        request_key = (ctx.meta or {}).get(ID_KEY)
        return LoneCall(self._names, exchange, name_of(request), str(request_key) if request_key else None)

    async def greeting(self, ctx: Context) -> str:
        """The instructions for a client that introduces itself."""
        request = _request(ctx)
        name = name_of(request)
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return await self._greeting_of(name, request.scope[EXCHANGE])
        return await greeting(await self.line(ctx, "streamable", name))

    async def _greeting_of(self, name: str | None, exchange: Exchange) -> str:
        """To a client without a session; its name is hosted from now on, so that mail comes."""
        if name is None:
            return instructions(_NOBODY)
        with contextlib.suppress(MeshError, TimeoutError):
            async with asyncio.timeout(GREETING):
                try:
                    await self._names.line(name, exchange).control()
                except NotAllowed as error:
                    return instructions(f"nobody yet: {error.message}")
        return instructions(name)

    # --- sessions ---

    async def line(self, ctx: Context, transport: str, name: str | None) -> Line:
        """The line of the session that the request belongs to; it ends with it."""
        connection = _connection(ctx)
        line: Line | None = connection.state.get(_LINE)
        if line is None:
            line = connection.state[_LINE] = Line(self._daemon, name, client=_client_of(ctx))
            connection.exit_stack.push_async_callback(self._end, line, transport, connection.session_id)
            self.sessions[transport] += 1
            if connection.session_id is not None:
                self.attendance.begin(connection.session_id, line)
            if name is not None:
                await self.attendance.free(name)
        return line

    async def _end(self, line: Line, transport: str, session_id: str | None) -> None:
        self.sessions[transport] -= 1
        if session_id is not None:
            self.attendance.end(session_id)
        await line.close()

    async def close(self) -> None:
        await self.attendance.close()
        await self._names.close()


class SseFront:
    """The same for one client of the older transport, whose answers all go out in the response of its `/sse`."""

    def __init__(self, front: Front, exchange: Exchange, name: str | None) -> None:
        self._front = front
        self._exchange = exchange
        self._name = name

    async def _line(self, ctx: Context) -> Line:
        return await self._front.line(ctx, "sse", self._name)

    async def of(self, ctx: Context) -> Caller:
        line = await self._line(ctx)
        return SessionCall(line, line.key, self._exchange)

    async def greeting(self, ctx: Context) -> str:
        return await greeting(await self._line(ctx))


async def greeting(line: Line) -> str:
    """The instructions with the session's name, if the daemon gives it soon enough."""
    with contextlib.suppress(MeshError, TimeoutError):
        async with asyncio.timeout(GREETING):
            await line.control()
    return instructions(line.name, line.wanted) if line.name else instructions("nobody yet: meshd does not answer")


async def introduce(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Middleware of the SDK's server: each client's own instructions, in the answer to its first request."""
    result = await call_next(ctx)
    if ctx.method in ("initialize", "server/discover") and isinstance(result, dict):
        state: Any = ctx.lifespan_context
        result = {**result, "instructions": await state.greeting(ctx)}
    return result


def _connection(ctx: Context) -> Connection:
    # The SDK means middleware to use the connection's `state` and `exit_stack`, and has no other way to it yet.
    return ctx.session._connection


def _request(ctx: Context) -> Request:
    assert isinstance(ctx.request, Request)
    return ctx.request


def _client_of(ctx: Context) -> str | None:
    """The client's program, as it says in `initialize`."""
    info = (ctx.params or {}).get("clientInfo") if ctx.method == "initialize" else None
    name = info.get("name") if isinstance(info, dict) else None
    return cut(one_line(name), 64) if isinstance(name, str) else None
