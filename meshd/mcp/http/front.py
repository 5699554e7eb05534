"""From a request of MCP to the agent that makes it: by its session, or by the name that the request gives.

Requests of a session (the handshake's versions of MCP, and SSE) belong to one agent with a line of its own, from
`initialize` to the session's end. Since 2026-07-28 each request stands alone: it says who speaks by the tool's own
parameter or the header Agent-Mesh-Name, and all requests of one name share a line while there are any.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import msgspec
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request

from meshd.core.names import check_name
from meshd.core.text import cut, one_line
from meshd.errors import MeshError, UsageError
from meshd.mcp.control import DaemonGone
from meshd.mcp.http.exchange import EXCHANGE, Exchange
from meshd.mcp.http.guard import name_of
from meshd.mcp.http.line import Daemon, Line
from meshd.mcp.session import Caller, Context, Session
from meshd.mcp.tools import Tool, instructions

# Seconds that a name stays a live session after its last request.
LINGER = 10.0
# Seconds that `initialize` waits for the session's name; it is found later if need be.
GREETING = 2.0
# A client's own id for a request: one that it repeats is carried out once.
ID_KEY = "agent-mesh/id"
_LINE = "agent-mesh.line"
_NOBODY = "nobody yet: give your name (name, from_agent) in each call"


class _Call:
    """Carries out the tool call of one request, on its agent's line."""

    def __init__(self, line: Line, key: str, exchange: Exchange) -> None:
        self._line = line
        self._key = key
        self._exchange = exchange

    async def call(self, tool: Tool, arguments: dict[str, Any], request_id: object) -> dict[str, Any]:
        # A client that reuses an id means another message if it says another thing.
        unique = (request_id, tool.name, _encoded(arguments))
        with self._exchange.waiting():
            try:
                session, result = await self._once(tool, arguments, unique)
            except DaemonGone:  # once more: what is sent has an id made from `unique`, and is not sent twice
                session, result = await self._once(tool, arguments, unique)
        if tool.method == "session.register":
            self._line.name = session.name

        def settle(written: bool) -> None:
            (session.delivered if written else session.dropped)(unique)

        if tool.reads:
            self._exchange.hand_over(result, settle)
        return result

    async def _once(self, tool: Tool, arguments: dict[str, Any], request_id: object) -> tuple[Session, dict[str, Any]]:
        control = await self._line.control()
        session = Session(self._key, control)
        session.name = self._line.name
        return session, await session.call(tool, arguments, request_id)


def _encoded(arguments: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(arguments, order="sorted")
    except (ValueError, OverflowError, RecursionError, TypeError) as error:
        raise UsageError(f"the arguments cannot be sent: {type(error).__name__}", "Send valid Unicode.") from None


class _AnyName:
    """Carries out a tool call of a request that stands alone."""

    def __init__(self, front: Front, exchange: Exchange, name: str | None, request_key: str | None) -> None:
        self._front = front
        self._exchange = exchange
        self._name = name
        self._request_key = request_key

    async def call(self, tool: Tool, arguments: dict[str, Any], request_id: object) -> dict[str, Any]:
        name = self._name
        if tool.method == "session.register":
            tool = tool._replace(method="register", own="name")  # there is no session to name: the name is hosted
        if tool.own is not None:
            given = arguments.get(tool.own)
            name = check_name(given) if isinstance(given, str) else name
            if name is None and given is None:
                raise UsageError("this request does not say who you are", f"Give {tool.own}.")
        line = self._front.line_of(name, self._exchange)
        # Ids of JSON-RPC begin anew with each client: they do not tell a repetition from another message.
        key = f"{name} {self._request_key}" if self._request_key else Line.new_key()
        return await _Call(line, key, self._exchange).call(tool, arguments, None)


class Front:
    """What the SDK's server is given as its state, for `/mcp`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._shared: dict[str | None, _Shared] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.sessions: Counter[str] = Counter()

    async def of(self, ctx: Context) -> Caller:
        request = _request(ctx)
        exchange: Exchange = request.scope[EXCHANGE]
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            line = self.line(ctx, "streamable", name_of(request))
            return _Call(line, line.key, exchange)
        request_key = (ctx.meta or {}).get(ID_KEY)
        return _AnyName(self, exchange, name_of(request), str(request_key) if request_key else None)

    async def greeting(self, ctx: Context) -> str:
        """The instructions for a client that introduces itself."""
        name = name_of(_request(ctx))
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return instructions(name or _NOBODY)
        return await greeting(self.line(ctx, "streamable", name))

    # --- sessions ---

    def line(self, ctx: Context, transport: str, name: str | None) -> Line:
        """The line of the session that the request belongs to; it ends with it."""
        connection = _connection(ctx)
        line: Line | None = connection.state.get(_LINE)
        if line is None:
            line = connection.state[_LINE] = Line(self._daemon, name, client=_client_of(ctx))
            connection.exit_stack.push_async_callback(self._end, line, transport)
            self.sessions[transport] += 1
        return line

    async def _end(self, line: Line, transport: str) -> None:
        self.sessions[transport] -= 1
        await line.close()

    # --- names ---

    def line_of(self, name: str | None, exchange: Exchange) -> Line:
        """The line that all requests of this name share; it is kept for this exchange."""
        shared = self._shared.get(name)
        if shared is None:
            shared = self._shared[name] = _Shared(Line(self._daemon, name, strict=True))
        shared.users += 1
        if shared.timer is not None:
            shared.timer.cancel()
            shared.timer = None
        exchange.at_end(lambda: self._release(name, shared))
        return shared.line

    def _release(self, name: str | None, shared: _Shared) -> None:
        shared.users -= 1
        if not shared.users:
            shared.timer = asyncio.get_running_loop().call_later(LINGER, self._expire, name, shared)

    def _expire(self, name: str | None, shared: _Shared) -> None:
        del self._shared[name]
        task = asyncio.create_task(shared.line.close(), name="line")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        for shared in self._shared.values():
            if shared.timer is not None:
                shared.timer.cancel()
            await shared.line.close()
        if self._closing:
            await asyncio.wait(self._closing)


class _Shared:
    def __init__(self, line: Line) -> None:
        self.line = line
        self.users = 0
        self.timer: asyncio.TimerHandle | None = None


class SseFront:
    """The same for one client of the older transport, whose answers all go out in the response of its `/sse`."""

    def __init__(self, front: Front, exchange: Exchange, name: str | None) -> None:
        self._front = front
        self._exchange = exchange
        self._name = name

    def _line(self, ctx: Context) -> Line:
        return self._front.line(ctx, "sse", self._name)

    async def of(self, ctx: Context) -> Caller:
        line = self._line(ctx)
        return _Call(line, line.key, self._exchange)

    async def greeting(self, ctx: Context) -> str:
        return await greeting(self._line(ctx))


async def greeting(line: Line) -> str:
    """The instructions with the session's name, if the daemon gives it soon enough."""
    with contextlib.suppress(MeshError, TimeoutError):
        async with asyncio.timeout(GREETING):
            await line.control()
    return instructions(line.name, line.wanted)


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
