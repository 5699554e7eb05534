"""The methods that MCP sessions use, beside the commands: to come, to take a name, to be woken from now on, and to
say that a rung failed.

A session is a connection: what `session.open` began ends with it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from meshd.commands.base import Params
from meshd.commands.register import Hosting, RegisterParams, register
from meshd.commands.table import COMMANDS
from meshd.control.calls import Authority, RpcCall
from meshd.control.client import Client
from meshd.control.connection import Request, params_of
from meshd.core.opening import Opening
from meshd.errors import UsageError
from meshd.hosting.sessions import Session
from meshd.service.mcp_process import GatewayProcess

Method = Callable[[Client, Request], Coroutine[Any, Any, dict[str, Any]]]


class _Failed(Params):
    rung: str
    why: str


class SessionMethods:
    """`mcp.open` for a shim that looks for the gateway; `session.*` for the gateway itself."""

    def __init__(self, authority: Authority, gateway: GatewayProcess) -> None:
        self._authority = authority
        self._sessions = authority.sessions
        self._gateway_process = gateway
        self.table: dict[str, Method] = {
            "mcp.open": self._gateway,
            "session.open": self._open,
            "session.register": self._register,
            "session.ready": self._ready,
            "session.failed": self._failed,
        }

    async def _gateway(self, client: Client, request: Request) -> dict[str, Any]:
        return {"socket": await self._gateway_process.open()}

    async def _open(self, client: Client, request: Request) -> dict[str, Any]:
        """The session's name. From now on this connection speaks for it, and is told `session.ring`."""
        opening = params_of(request, Opening)
        if client.session is not None:
            raise UsageError("this connection is a session already", "open one connection for each session")

        def ring(rung: str, line: str) -> None:
            client.connection.send({"jsonrpc": "2.0", "method": "session.ring", "params": {"rung": rung, "text": line}})

        session = await self._sessions.open(opening, ring)
        client.session = session
        if client.connection.transport.is_closing():  # it went while its name was looked for
            self._sessions.close(session)
        return {"name": session.name, "wanted": opening.had or opening.name}

    async def _register(self, client: Client, request: Request) -> dict[str, Any]:
        """`register`, and the session goes by that name from now on."""
        session, params = _session(client), params_of(request, RegisterParams)
        data: dict[str, Any] = {}

        async def host() -> None:
            call = RpcCall(self._authority, client, COMMANDS["register"], request.id)
            data.update((await register(call, params, Hosting(self._authority.names))).data)

        await self._sessions.rename(session, params.name, host)
        return data

    async def _ready(self, client: Client, request: Request) -> dict[str, Any]:
        self._sessions.ready(_session(client))
        return {}

    async def _failed(self, client: Client, request: Request) -> dict[str, Any]:
        failed = params_of(request, _Failed)
        self._sessions.failed(_session(client), failed.rung, failed.why)
        return {}


def _session(client: Client) -> Session:
    if client.session is None:
        raise UsageError("this connection is no session", "call session.open first")
    return client.session
