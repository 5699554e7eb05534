"""Dispatch: from a request on the socket to a command's handler, and back.

Beside one method per command there are: `hello`, `confirm`, `release` and `cancel` for programs, `events.subscribe`,
`shutdown`, and `cli`, which is a whole command line; and those of MCP sessions (session_methods.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any

from meshd import __version__, paths
from meshd.commands.base import Params
from meshd.commands.daemon import EventsParams, events
from meshd.commands.status import Condition
from meshd.commands.table import COMMANDS
from meshd.control.calls import Authority, CliCall, RpcCall
from meshd.control.client import Client
from meshd.control.connection import Connection, Request, params_of
from meshd.control.session_methods import SessionMethods
from meshd.core.names import is_name, is_nonce
from meshd.errors import MethodNotFound, Stopping, UsageError
from meshd.hosting.supervisor import Supervisor
from meshd.observing.background import Background
from meshd.receiving.handover import Delivery
from meshd.service.manager import USER

log = logging.getLogger("meshd.control")

PROTOCOL = {"min": 1, "max": 1}
CAPABILITIES = ["confirm", "cancel", "events", "cli", "sessions"]
# Seconds that running calls have to end by themselves when the daemon stops.
_GRACE = 0.3


class _Hello(Params):
    name: str | None = None


class _Receipt(Params):
    receipt: str


class _Cancel(Params):
    id: int | str


class _Shutdown(Params):
    returning: bool = False


class _Explicit(Params):
    ack: str = ""


class _CliParams(Params):
    argv: list[str]
    env: dict[str, str] = {}
    stdin: str | None = None
    id: str | None = None


class _CliAck(Params):
    n: int


class Server:
    """The methods of the control socket, for all clients of one daemon."""

    def __init__(self, supervisor: Supervisor, stop: Callable[[], None], managed_by: str) -> None:
        self._instance = supervisor.instance
        self._supply = supervisor.supply
        self._authority = supervisor.supply(Authority)
        self.clients: dict[Connection, Client] = {}
        self._stop = stop
        self._managed_by = managed_by
        self.returning = False  # another daemon follows this one at once
        self._ended = False
        self._background = Background(log)
        self._await_end: list[Connection] = []
        self._own: dict[str, Callable[[Client, Request], Coroutine[Any, Any, Any]]] = {
            "hello": self._hello,
            "confirm": self._confirm,
            "release": self._release,
            "cancel": self._cancel,
            "cli": self._cli,
            "events.subscribe": self._subscribe,
            "shutdown": self._shutdown,
            "down": self._shutdown,
            "version": self._hello,
            **SessionMethods(self._authority, supervisor.gateway).table,
        }
        self._methods = [*self._own, *(name for name, command in COMMANDS.items() if command.run)]

    def connection(self) -> Connection:
        """A protocol for a client that has just connected."""
        connection = Connection(self._handle, self._note)
        client = self.clients[connection] = Client(connection, self._background)
        connection.on_request.append(client.asks_again)
        connection.closed.append(lambda clean: self._gone(client, clean))
        return connection

    async def stop(self) -> None:
        """Let running calls end by themselves for a moment, then end them, and every connection.

        Sessions are told that this is meant: they would start the daemon anew at once. If it is `returning`, nobody
        is told anything: who waits comes back, as after a crash, and the next daemon goes on with it.
        """
        for client in self.clients.values():
            if client.session is not None and not self.returning:
                client.connection.send({"jsonrpc": "2.0", "method": "session.stopping", "params": {}})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                while any(connection.running for connection in self.clients):
                    await asyncio.sleep(_GRACE / 10)
        for connection in list(self.clients):
            if connection in self._await_end:
                continue
            if self.returning:
                connection.drop()
            else:
                connection.stop(_stopped())
        self._ended = True

    def end(self) -> None:
        """Leave the connections that asked for the end to the end of this process: to them it means that all is over.

        The interpreter's own end takes a while, with files still open: a copy of the descriptor lasts as long.
        """
        for connection in self._await_end:
            with contextlib.suppress(OSError):  # whoever asked has gone
                os.dup(connection.transport.get_extra_info("socket").fileno())
            connection.close()

    def _gone(self, client: Client, clean: bool) -> None:
        del self.clients[client.connection]
        client.gone(clean)
        self._authority.sessions.close(client.session)

    async def _handle(self, connection: Connection, request: Request) -> Any:
        if self._ended:  # it was accepted in the last moment
            if self.returning:
                connection.drop()
            raise _stopped()
        client = self.clients[connection]
        own = self._own.get(request.method)
        if own is not None:
            return await own(client, request)
        command = COMMANDS.get(request.method)
        if command is None or command.run is None:
            raise _unknown(request.method, self._methods)
        params = params_of(request, command.params)
        explicit = b'"ack"' in bytes(request.params) and params_of(request, _Explicit).ack == "explicit"
        call = RpcCall(self._authority, client, command, request.id, explicit=explicit)
        return call.give(await command.run(call, params, self._supply(command.needs)))

    def _note(self, connection: Connection, request: Request) -> bool:
        """Notifications that are handled in the order they came. False for all others."""
        if request.method == "cli.ack":
            with contextlib.suppress(UsageError):  # nobody waits for an answer to a notification
                self.clients[connection].acknowledged(params_of(request, _CliAck).n)
            return True
        return False

    # --- methods of our own ---

    async def _hello(self, client: Client, request: Request) -> dict[str, Any]:
        hello = params_of(request, _Hello)
        if hello.name is not None and is_name(hello.name):
            client.name = hello.name
        return {
            "protocol": PROTOCOL,
            "version": __version__,
            "pid": os.getpid(),
            "instance": self._instance,
            "managed_by": self._managed_by,
            "capabilities": CAPABILITIES,
        }

    async def _confirm(self, client: Client, request: Request) -> dict[str, Any]:
        handover = self._handed(client, request)
        await handover.confirm()
        return {"confirmed": len(handover.messages)}

    async def _release(self, client: Client, request: Request) -> dict[str, Any]:
        """The opposite of `confirm`: it did not reach the agent, and is unread again."""
        handover = self._handed(client, request)
        handover.release()
        return {"released": len(handover.messages)}

    @staticmethod
    def _handed(client: Client, request: Request) -> Delivery:
        handover = client.receipts.pop(params_of(request, _Receipt).receipt, None)
        if handover is None:
            raise UsageError("no such receipt on this connection", "confirm on the connection that was given it, once")
        return handover

    async def _cancel(self, client: Client, request: Request) -> dict[str, Any]:
        return {"cancelled": client.connection.cancel(params_of(request, _Cancel).id)}

    async def _subscribe(self, client: Client, request: Request) -> dict[str, Any]:
        call = RpcCall(self._authority, client, COMMANDS["events"], request.id)
        return (await events(call, EventsParams(follow=True), self._supply(Condition))).data

    async def _shutdown(self, client: Client, request: Request) -> dict[str, Any]:
        self.returning = params_of(request, _Shutdown).returning
        self._await_end.append(client.connection)
        asyncio.get_running_loop().call_soon(self._stop)
        return {"stopping": True, "pid": os.getpid()}

    async def _cli(self, client: Client, request: Request) -> dict[str, Any]:
        p = params_of(request, _CliParams)
        given_id = p.id if p.id is not None and is_nonce(p.id) else None
        call = CliCall(self._authority, self._supply, client, p.env, given_id)
        printed = await call.run(p.argv, p.stdin)
        printed = printed._replace(err=self._differing(p.env) + printed.err)
        ours = {"version": __version__, "pid": os.getpid(), "managed_by": self._managed_by}
        return {"code": printed.code, "out": printed.out, "err": printed.err, **ours}

    def _differing(self, environment: dict[str, str]) -> str:
        """A warning if the caller's environment means another store than the daemon's."""
        said = ""
        how = "meshctl down && meshctl up"
        if self._managed_by != USER:  # a service sees no variables of a shell
            how = f"write {paths.config_file()}, then: meshctl service restart"
        for key in ("redis_url", "prefix"):
            theirs = environment.get(f"AGENT_MESH_{key.upper()}")
            if theirs and theirs != getattr(self._authority.configuration.current, key):
                said += (
                    f"warning: AGENT_MESH_{key.upper()} here is not what the daemon was started with; "
                    f"to change it: {how}\n"
                )
        return said


def _stopped() -> Stopping:
    return Stopping("the daemon was stopped before this was answered", "meshctl status")


def _unknown(method: str, known: list[str]) -> MethodNotFound:
    if method in COMMANDS:
        return MethodNotFound(f"{method} is carried out by the client, not by the daemon", f"run: meshctl {method}")
    near = difflib.get_close_matches(method, known, 1)
    return MethodNotFound(
        f"no method {method[:64]!r}", f"did you mean {near[0]!r}?" if near else "call hello first", nearest=near[:1]
    )
