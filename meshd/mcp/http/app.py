"""The endpoints: MCP in both transports, health, metrics."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.runner import serve_loop
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from meshd import __version__
from meshd.mcp.http.address import Address
from meshd.mcp.http.daemon_connection import Daemon
from meshd.mcp.http.guard import Guard, name_of
from meshd.mcp.http.presence import ClientPresence
from meshd.mcp.http.response import EXCHANGE, HandingOver
from meshd.mcp.http.routing import Router, SseRouter, introduce
from meshd.mcp.session import ToolCallers, server
from meshd.observing import metrics

# The daemon takes lines of 1 MiB, and a call is sent to it in one: the rest is for what is put around it.
MAX_BODY = (1 << 20) - 4096
MAX_SESSIONS = 1000
STOPPING = "this HTTP server was stopped before the call was answered"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Application:
    """The ASGI application `asgi`, and what it holds. `control` is the path of the daemon's socket."""

    def __init__(self, control: str, address: Address) -> None:
        self._daemon = Daemon(control)
        self._router = Router(self._daemon)
        mcp = server()
        mcp.lifespan = self._sessions
        mcp.middleware.append(introduce)
        mcp.get_tool_input_schema = lambda name: None  # no parameter of ours is mirrored in a header
        # The guard has looked at Host and Origin before, for every path.
        self._manager = StreamableHTTPSessionManager(mcp, max_request_body_size=MAX_BODY, max_sessions=MAX_SESSIONS)
        messages = SseServerTransport("/messages/", max_request_body_size=MAX_BODY)
        routes = [
            Route("/mcp", _Mcp(StreamableHTTPASGIApp(self._manager), self._router.presence)),
            Route("/sse", _Sse(mcp, self._router, messages)),
            Mount("/messages/", messages.handle_post_message),
            Route("/health", self._health, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
        ]
        self._handing_over = HandingOver(Starlette(routes=routes, lifespan=self._lifespan))
        self.asgi = Guard(self._handing_over, address.names, address.token)

    async def interrupt(self) -> None:
        """Answer the calls that wait, until all have their answer: the process ends."""
        await self._handing_over.interrupt(STOPPING)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            async with self._manager.run():
                yield
        finally:
            await self._router.close()
            await self._daemon.close()

    @contextlib.asynccontextmanager
    async def _sessions(self, mcp: Server[ToolCallers]) -> AsyncIterator[ToolCallers]:
        yield self._router

    async def _health(self, request: Request) -> JSONResponse:
        """Whether a message could be sent now: to a load balancer, or to a person with curl."""
        status = await self._daemon.status()
        store = status["store"]["state"] if status is not None else "unknown"
        body = {
            "ok": store == "up",
            "version": __version__,
            "daemon": None if status is None else {"version": status["version"], "pid": status["pid"]},
            "store": store,
        }
        return JSONResponse(body, status_code=200 if body["ok"] else 503, headers={"cache-control": "no-store"})

    async def _metrics(self, request: Request) -> PlainTextResponse:
        text = metrics.render(await self._daemon.status())
        text += metrics.render_http(self._router.sessions, self.asgi.answered)
        return PlainTextResponse(text, media_type=METRICS_TYPE)


class _Mcp:
    """`/mcp`. No answer is kept to be sent again: a client that asks for one gets a new stream."""

    def __init__(self, app: StreamableHTTPASGIApp, presence: ClientPresence) -> None:
        self._app = app
        self._presence = presence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(key, value) for key, value in scope["headers"] if key != b"last-event-id"]
        session_id = Headers(scope=scope).get("mcp-session-id", "")
        with self._presence.request(session_id, stream=scope["method"] == "GET"):
            await self._app({**scope, "headers": headers}, receive, send)


class _Sse:
    """`/sse`: a session for as long as its response lasts."""

    def __init__(self, mcp: Server[ToolCallers], router: Router, transport: SseServerTransport) -> None:
        self._mcp = mcp
        self._router = router
        self._transport = transport
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await Response(status_code=405, headers={"allow": "GET"})(scope, receive, send)
            return
        if self._open >= MAX_SESSIONS:
            await PlainTextResponse("too many sessions", status_code=503)(scope, receive, send)
            return
        state: Any = SseRouter(self._router, scope[EXCHANGE], name_of(Request(scope)))
        self._open += 1
        try:
            async with self._transport.connect_sse(scope, receive, send) as (read, write):
                await serve_loop(self._mcp, read, write, lifespan_state=state)
        finally:
            self._open -= 1
