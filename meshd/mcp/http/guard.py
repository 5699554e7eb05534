"""Who may ask: the names that lead here, the pages that may use them, and the token.

A page in a browser can reach a server on loopback through a name of its own that suddenly means 127.0.0.1 (DNS
rebinding); the Host header tells. Pages of other servers are told by their Origin header.
"""

from __future__ import annotations

import hmac
import re
from collections import Counter

from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshd.core.names import is_name

NAME_HEADER = "agent-mesh-name"
# Asked by programs that hold no token: whether all is well is no secret.
OPEN_PATH = "/health"
_HOST = re.compile(r"(\[[^\]@/]+\]|[^:@/\[\]]+)(:\d*)?")
PATHS = ("/mcp", "/sse", "/messages/", "/health", "/metrics")


def security(names: list[str]) -> TransportSecuritySettings:
    """The SDK's settings for these host names, on any port: a tunnel ends on another one."""
    origins = [f"{scheme}://{name}" for scheme in ("http", "https") for name in names]
    return TransportSecuritySettings(
        allowed_hosts=[variant for name in names for variant in (name, f"{name}:*")],
        allowed_origins=[variant for origin in origins for variant in (origin, f"{origin}:*")],
    )


def name_of(request: Request) -> str | None:
    """The agent's name that a request gives, in its header or its query."""
    return request.headers.get(NAME_HEADER) or request.query_params.get("name") or None


class Guard:
    """ASGI: refuses what may not come in, on every path, and counts what was answered."""

    def __init__(self, app: ASGIApp, names: list[str], token: bytes | None) -> None:
        self._app = app
        self._security = TransportSecurityMiddleware(security(names))
        self._token = token
        self.answered: Counter[tuple[str, int]] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answered[path, message["status"]] += 1
            await send(message)

        request = Request(scope)
        refusal = await self._security.validate_request(request) or self._refuse(request)
        await (refusal or self._app)(scope, receive, counted)

    def _refuse(self, request: Request) -> JSONResponse | None:
        if self._token is not None and request.url.path != OPEN_PATH and not self._shows_token(request):
            return _error(401, "this server needs a token: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})
        if not _HOST.fullmatch(request.headers.get("host", "")):  # the SDK takes anything behind a colon for a port
            return _error(421, "the Host header is not a host with a port")
        name = name_of(request)
        if name is not None and not is_name(name):
            return _error(400, "an agent's name is 1 to 64 characters of A-Z a-z 0-9 _ -")
        return None

    def _shows_token(self, request: Request) -> bool:
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        assert self._token is not None
        return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("latin-1"), self._token)


def _error(status: int, what: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": what}, status_code=status, headers=headers)
