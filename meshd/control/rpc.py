"""Dispatch: from a request on the socket to a command's handler, and back.

Beside one method per command there are: `hello`, `confirm` and `cancel` for programs, `events.subscribe`,
`shutdown`, and `cli`, which is a whole command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import fcntl
import os
import secrets
import socket
import struct
import sys
import termios
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from meshd import __version__
from meshd.commands.base import Call, Command, Handover, Params, Printed, Result
from meshd.commands.daemon import EventsParams, events
from meshd.commands.table import COMMANDS
from meshd.control import cli
from meshd.control.connection import Connection, Request
from meshd.core.names import is_name, is_nonce
from meshd.errors import Full, MeshError, MethodNotFound, Stopping, UsageError
from meshd.supervisor import Supervisor

T = TypeVar("T", bound=Params)

PROTOCOL = {"min": 1, "max": 1}
CAPABILITIES = ["confirm", "cancel", "events", "cli"]
# After this long, an answer that the client has taken out of the socket counts as handed over.
_SETTLE = 1.0
# Seconds that a client which has closed its half may take to read its last answer.
_LINGER = 5.0
_GRACE = 0.3
_CHUNK = 128 * 1024


class _Hello(Params):
    name: str | None = None


class _Confirm(Params):
    receipt: str


class _Cancel(Params):
    id: int | str


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
        self.mesh = supervisor
        self.clients: dict[Connection, Client] = {}
        self._stop = stop
        self._managed_by = managed_by
        self._await_end: list[Connection] = []
        self._own: dict[str, Callable[[Client, Request], Coroutine[Any, Any, Any]]] = {
            "hello": self._hello,
            "confirm": self._confirm,
            "cancel": self._cancel,
            "cli": self._cli,
            "events.subscribe": self._subscribe,
            "shutdown": self._shutdown,
            "down": self._shutdown,
            "version": self._hello,
        }
        self._methods = [*self._own, *(name for name, command in COMMANDS.items() if command.run)]

    def connection(self) -> Connection:
        """A protocol for a client that has just connected."""
        connection = Connection(self._handle, self._note)
        client = self.clients[connection] = Client(connection)
        connection.on_request.append(client.asks_again)
        connection.closed.append(lambda clean: self._gone(client, clean))
        return connection

    async def stop(self) -> None:
        """Let running calls end by themselves for a moment, then end them, and every connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                while any(connection.running for connection in self.clients):
                    await asyncio.sleep(_GRACE / 10)
        for connection in list(self.clients):
            if connection not in self._await_end:
                connection.stop(Stopping("the daemon was stopped before this was answered", "meshctl status"))

    def end(self) -> None:
        """Close the connections that asked for the end: to them it means that all is over."""
        for connection in self._await_end:
            connection.close()

    def _gone(self, client: Client, clean: bool) -> None:
        del self.clients[client.connection]
        client.gone(clean)

    async def _handle(self, connection: Connection, request: Request) -> Any:
        client = self.clients[connection]
        own = self._own.get(request.method)
        if own is not None:
            return await own(client, request)
        command = COMMANDS.get(request.method)
        if command is None or command.run is None:
            raise _unknown(request.method, self._methods)
        params = _params(request, command.params)
        explicit = b'"ack"' in bytes(request.params) and _params(request, _Explicit).ack == "explicit"
        call = RpcCall(self.mesh, client, command, request.id, explicit=explicit)
        return call.give(await command.run(call, params))

    def _note(self, connection: Connection, request: Request) -> bool:
        """Notifications that are handled in the order they came. False for all others."""
        if request.method == "cli.ack":
            with contextlib.suppress(UsageError):  # nobody waits for an answer to a notification
                self.clients[connection].acknowledged(_params(request, _CliAck).n)
            return True
        return False

    # --- methods of our own ---

    async def _hello(self, client: Client, request: Request) -> dict[str, Any]:
        hello = _params(request, _Hello)
        if hello.name is not None and is_name(hello.name):
            client.name = hello.name
        return {
            "protocol": PROTOCOL,
            "version": __version__,
            "pid": os.getpid(),
            "instance": self.mesh.instance,
            "managed_by": self._managed_by,
            "capabilities": CAPABILITIES,
        }

    async def _confirm(self, client: Client, request: Request) -> dict[str, Any]:
        handover = client.receipts.pop(_params(request, _Confirm).receipt, None)
        if handover is None:
            raise UsageError("no such receipt on this connection", "confirm on the connection that was given it, once")
        await handover.confirm()
        return {"confirmed": len(handover.messages)}

    async def _cancel(self, client: Client, request: Request) -> dict[str, Any]:
        return {"cancelled": client.connection.cancel(_params(request, _Cancel).id)}

    async def _subscribe(self, client: Client, request: Request) -> dict[str, Any]:
        call = RpcCall(self.mesh, client, COMMANDS["events"], request.id)
        return (await events(call, EventsParams(follow=True))).data

    async def _shutdown(self, client: Client, request: Request) -> dict[str, Any]:
        self._await_end.append(client.connection)
        asyncio.get_running_loop().call_soon(self._stop)
        return {"stopping": True, "pid": os.getpid()}

    async def _cli(self, client: Client, request: Request) -> dict[str, Any]:
        p = _params(request, _CliParams)
        name = p.env.get("AGENT_MESH_NAME") or None
        given_id = p.id if p.id is not None and is_nonce(p.id) else None
        call = CliCall(self.mesh, client, name, given_id)
        printed = await call.run(p.argv, p.stdin)
        printed = printed._replace(err=self._differing(p.env) + printed.err)
        return {"code": printed.code, "out": printed.out, "err": printed.err}

    def _differing(self, environment: dict[str, str]) -> str:
        """A warning if the caller's environment means another store than the daemon's."""
        said = ""
        for key in ("redis_url", "prefix"):
            theirs = environment.get(f"AGENT_MESH_{key.upper()}")
            if theirs and theirs != getattr(self.mesh.settings, key):
                said += (
                    f"warning: AGENT_MESH_{key.upper()} here is not what the daemon was started with; "
                    "to change it: meshctl down && meshctl up\n"
                )
        return said


class Client:
    """What the daemon remembers of one connection: its name, and what it was handed and has not confirmed."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.name: str | None = None
        self.receipts: dict[str, Handover] = {}
        self._implicit: list[Handover] = []
        self._gone = False
        self._acks: dict[int, asyncio.Future[None]] = {}
        self._last_ack = 0

    # --- programs ---

    def hand_over(self, handover: Handover, *, explicit: bool) -> str | None:
        """Remember an answer with mail in it. Explicit: until `confirm`. Else: until it surely was taken."""
        if self._gone:
            handover.release()
            return None
        if explicit:
            receipt = secrets.token_hex(8)
            self.receipts[receipt] = handover
            return receipt
        self._implicit.append(handover)
        asyncio.get_running_loop().call_later(_SETTLE, self._if_taken)
        return None

    def asks_again(self) -> None:
        """Another request of this client: what it was sent before counts as taken, if it is out of the socket."""
        if self._implicit and _unread_by_peer(self.connection.transport) == 0:
            self._taken()

    def _taken(self) -> None:
        handovers, self._implicit = self._implicit, []
        for handover in handovers:
            _background(handover.confirm())

    def _if_taken(self) -> None:
        self.asks_again()
        if self._implicit and not self.connection.transport.is_closing():
            asyncio.get_running_loop().call_later(_SETTLE, self._if_taken)

    def gone(self, clean: bool) -> None:
        """The connection ended; `clean` if nothing that was sent stayed unread."""
        self._gone = True
        if clean and self._implicit:
            fd = os.dup(self.connection.transport.get_extra_info("socket").fileno())
            _background(_linger(self._implicit, fd))
            self._implicit = []
        for handover in (*self._implicit, *self.receipts.values()):
            handover.release()
        for future in self._acks.values():
            future.cancel()

    # --- command lines ---

    async def write(self, printed: Printed) -> None:
        """Have the client write this, and wait until it has."""
        for fd, text in ((1, printed.out), (2, printed.err)):
            for start in range(0, len(text), _CHUNK):
                self._last_ack = n = self._last_ack + 1
                future = self._acks[n] = asyncio.get_running_loop().create_future()
                params = {"fd": fd, "text": text[start : start + _CHUNK], "ack": n}
                self.connection.send({"jsonrpc": "2.0", "method": "cli.write", "params": params})
                try:
                    await future
                finally:
                    del self._acks[n]

    def acknowledged(self, n: int) -> None:
        future = self._acks.get(n)
        if future is not None and not future.done():
            future.set_result(None)


class RpcCall(Call):
    """A command called by a program: items become notifications `<method>.item`."""

    def __init__(
        self, mesh: Supervisor, client: Client, command: Command, request_id: Any, *, explicit: bool = False
    ) -> None:
        super().__init__(mesh, client.name)
        self._client = client
        self._command = command
        self._id = None if request_id is msgspec.UNSET else request_id
        self._explicit = explicit

    async def emit(self, result: Result) -> None:
        params = {"request": self._id, "item": self.give(result)}
        self._client.connection.send({"jsonrpc": "2.0", "method": f"{self._command.name}.item", "params": params})
        await self._client.connection.room()

    def give(self, result: Result) -> dict[str, Any]:
        """The result's data, with a receipt if the caller wants to confirm the hand-over itself."""
        if result.handover is None:
            return result.data
        receipt = self._client.hand_over(result.handover, explicit=self._explicit)
        return result.data if receipt is None else {**result.data, "receipt": receipt}


class CliCall(Call):
    """A command line of `meshctl`: parsed, run and rendered here; read means that the client has written it."""

    max_bytes = 64 << 20  # what is printed goes out in pieces

    def __init__(self, mesh: Supervisor, client: Client, name: str | None, given_id: str | None) -> None:
        super().__init__(mesh, name, given_id)
        self._client = client
        self._parsed: cli.Parsed

    async def run(self, argv: list[str], stdin: str | None) -> Printed:
        parsed = cli.parse(argv)
        if isinstance(parsed, Printed):
            return parsed
        self._parsed = parsed
        if parsed.command.run is None:
            raise UsageError(f"{parsed.command.name} runs in the client", "upgrade meshctl to this daemon's version")
        try:
            params = _with_stdin(parsed.params, stdin)
            result = await parsed.command.run(self, params)
            printed = cli.render(parsed, result.data)
            if result.handover is not None:
                await self._hand_over(printed, result.handover)
                return Printed(code=printed.code)
            if len(printed.out) > _CHUNK:
                await self._client.write(printed)
                return Printed(code=printed.code)
        except MeshError as error:
            return cli.render_error(error, parsed)
        return printed

    async def emit(self, result: Result) -> None:
        printed = cli.render_item(self._parsed, result.data)
        if result.handover is not None:
            await self._hand_over(printed, result.handover)
        else:
            await self._client.write(printed)

    async def _hand_over(self, printed: Printed, handover: Handover) -> None:
        try:
            await self._client.write(printed)
            await handover.confirm()
        finally:
            handover.release()


def _with_stdin(params: Params, stdin: str | None) -> Params:
    """`-` as MESSAGE or TEXT means standard input."""
    for field in ("message", "text"):
        if getattr(params, field, None) == "-":
            if stdin is None:
                raise UsageError("standard input was not read", f"give the {field} itself")
            return msgspec.structs.replace(params, **{field: stdin})
    return params


def _params(request: Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(request.params, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{request.method[:64]}: {error}", "see the parameters of that command") from None


def _unknown(method: str, known: list[str]) -> MethodNotFound:
    near = difflib.get_close_matches(method, known, 1)
    return MethodNotFound(
        f"no method {method[:64]!r}", f"did you mean {near[0]!r}?" if near else "call hello first", nearest=near[:1]
    )


def _unread_by_peer(transport: asyncio.Transport) -> int:
    """Bytes that were sent and that the peer has not taken out of the socket yet (SIOCOUTQ); 0 if unknown."""
    if transport.get_write_buffer_size():
        return transport.get_write_buffer_size()
    return _outstanding(transport.get_extra_info("socket").fileno())


def _outstanding(fd: int) -> int:
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0" * 4))[0])
    return 0


async def _linger(handovers: list[Handover], fd: int) -> None:
    """The connection ended with a last answer in it: confirm if the client read that, release if it did not."""
    with socket.socket(fileno=fd) as ended:
        with contextlib.suppress(OSError):
            ended.shutdown(socket.SHUT_WR)
        taken = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while not (taken := _outstanding(fd) == 0):
                    await asyncio.sleep(_LINGER / 100)  # nothing tells that the peer has read
        # A peer that closes with unread bytes in its queue resets the connection.
        taken = taken and ended.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    for handover in handovers:
        if taken:
            with contextlib.suppress(Full):
                await handover.confirm()
        else:
            handover.release()


_confirming: set[asyncio.Task[None]] = set()


def _background(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _confirming.add(task)
    task.add_done_callback(_confirming.discard)
