"""One client of the control socket: newline-delimited JSON-RPC 2.0, bounded in every direction.

A line is at most 1 MiB; at most 256 calls run at once; a client that does not read its answers is not read
from either. So what waits for a client is at most the answers of those calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from meshd.control.framing import Lines
from meshd.errors import Cancelled, InvalidRequest, MeshError, NotAllowed, ParseError, Unexpected, UsageError
from meshd.observing.background import owned
from meshd.system.sockets import has_gone, peer_uid

log = logging.getLogger("meshd.control")

MAX_LINE = 1 << 20
MAX_CALLS = 256
HIGH_WATER = 256 * 1024
_LOOK_AGAIN = 1.0
_ONE_A_LINE = "send one JSON-RPC 2.0 object a line"

Id = int | str | float | None


class Request(msgspec.Struct):
    """A JSON-RPC request, or a notification if it has no id."""

    method: str
    id: Id | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = msgspec.Raw(b"{}")


T = TypeVar("T", bound=msgspec.Struct)


def params_of(request: Request, kind: type[T]) -> T:
    """The request's parameters. Raises `UsageError` naming the method and what is wrong."""
    try:
        return msgspec.json.decode(request.params, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{request.method[:64]}: {error}", "see the parameters of that command") from None


_decode = msgspec.json.Decoder(Request).decode
_encode = msgspec.json.Encoder().encode

Handler = Callable[["Connection", Request], Coroutine[Any, Any, Any]]


class Connection(asyncio.Protocol):
    """Limits and answers; what a method does is the `handler`'s business.

    `on_request` callbacks see each further request of this client before it runs; `closed(clean)` is called
    once, with whether the client had read everything that was sent to it.
    """

    def __init__(self, handler: Handler, notify: Callable[[Connection, Request], bool]) -> None:
        self.closed: list[Callable[[bool], None]] = []
        self.on_request: list[Callable[[], None]] = []
        self.transport: asyncio.Transport
        self._handler = handler
        self._notify = notify
        self._framing = Lines(MAX_LINE)
        self._lines: deque[bytes] = deque()
        self._calls: dict[asyncio.Task[None], Id | msgspec.UnsetType] = {}
        self._out: list[bytes] = []
        self._queued = 0
        self._writable = True
        self._reading = True
        self._eof = False
        self._waiting: list[asyncio.Future[None]] = []

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        connected: socket.socket = transport.get_extra_info("socket")
        uid = peer_uid(connected)
        if uid not in (None, 0, os.geteuid()):
            self._fail(
                None, NotAllowed("this daemon serves only the user who started it", "start your own: meshctl up")
            )
            self.close()

    def data_received(self, data: bytes) -> None:
        self._lines.extend(self._framing.feed(data))
        self._pump()

    def eof_received(self) -> bool:
        # Half-closed: what was asked is answered, then the connection ends. A client that has gone altogether
        # waits for nothing: its calls end, and with them what they hold.
        self._eof = True
        if self._has_gone() or (not self._calls and not self._lines):
            self._flush()  # the loop may tell of the end before it has written the last answers
            return False
        self._watch_half_closed()
        return True

    def _watch_half_closed(self) -> None:
        # After its end of file the loop reads no more from a client, and nothing tells that it closed the rest.
        if not self.transport.is_closing():
            if self._has_gone():
                self.transport.abort()
            else:
                asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._watch_half_closed)

    def _has_gone(self) -> bool:
        return has_gone(self.transport.get_extra_info("socket").fileno())

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable = False
        for task in list(self._calls):
            task.cancel()
        # The kernel says "reset" when the client went with unread bytes in its queue.
        for callback in self.closed:
            callback(exc is None and not self._out)
        self.closed.clear()

    def pause_writing(self) -> None:
        self._writable = False
        self._regulate()

    def resume_writing(self) -> None:
        self._writable = True
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        self._pump()

    # --- reading ---

    def _pump(self) -> None:
        """Start what was asked, as far as the limits allow."""
        while self._lines and self._writable and len(self._calls) < MAX_CALLS:
            line = self._lines.popleft()
            if line and not line.isspace():
                self._start(line)
        if self._framing.too_long and not self._lines:
            self._fail(None, ParseError(f"a line is longer than {MAX_LINE} bytes", "send shorter lines"))
            self.close()
        self._regulate()

    def _regulate(self) -> None:
        """Read from the client only while there is room for what it asks."""
        room = self._writable and len(self._calls) < MAX_CALLS
        if room != self._reading and not self.transport.is_closing():
            self._reading = room
            if room:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _start(self, line: bytes) -> None:
        try:
            request = _decode(line)
        except (msgspec.ValidationError, RecursionError) as error:  # how deep is too deep differs among Pythons
            self._fail(_id_of(line), InvalidRequest(f"not a request: {error}", _ONE_A_LINE))
            return
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._fail(None, ParseError(f"not JSON: {error}", _ONE_A_LINE))
            return
        for callback in self.on_request:
            callback()
        if request.id is msgspec.UNSET and self._notify(self, request):
            return
        self._calls[owned(self._run(request), f"call of {request.method[:64]}")] = request.id

    async def _run(self, request: Request) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            result = await self._handler(self, request)
            if request.id is not msgspec.UNSET:
                self.send({"jsonrpc": "2.0", "id": request.id, "result": result})
        except MeshError as error:
            self._fail(request.id, error)
        except asyncio.CancelledError:
            if task.cancelling():
                self._fail(request.id, Cancelled("cancelled"))
            else:  # by nobody who may: what the call waited for has ended under it
                self._fail_unexpectedly(request)
        except Exception:
            self._fail_unexpectedly(request)
        finally:
            del self._calls[task]
            self._pump()
            if self._eof and not self._calls and not self._lines:
                self.close()

    def _fail_unexpectedly(self, request: Request) -> None:
        log.exception("%s failed", request.method[:64])
        self._fail(request.id, Unexpected("internal error; see the daemon's log", "meshctl logs"))

    @property
    def running(self) -> int:
        """How many calls are not answered yet."""
        return len(self._calls)

    def stop(self, error: MeshError) -> None:
        """Answer every running call with this error, and close."""
        for task, request_id in list(self._calls.items()):
            task.cancel()
            self._fail(request_id, error)
        self.close()

    def drop(self) -> None:
        """Close without answering what runs: to the client it is as if we had been killed, and it asks again."""
        self._flush()
        self.transport.close()
        for task in list(self._calls):
            task.cancel()

    def cancel(self, request_id: Id) -> bool:
        """Cancel the running calls of that id. False if there is none."""
        found = [task for task, known in self._calls.items() if known == request_id]
        for task in found:
            task.cancel()
        return bool(found)

    # --- writing ---

    def send(self, message: dict[str, Any]) -> None:
        """Queue one line; all that is queued in one turn of the loop goes out in one write."""
        if self.transport.is_closing():
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        line = _encode(message) + b"\n"
        self._out.append(line)
        self._queued += len(line)
        if self._queued > HIGH_WATER:
            self._flush()  # so that the transport can say at once that it is full

    def _flush(self) -> None:
        if not self._out or self.transport.is_closing():
            return
        data = b"".join(self._out)
        self._out.clear()
        self._queued = 0
        self.transport.write(data)

    async def room(self) -> None:
        """Wait until the client has taken enough of what was sent to be sent more."""
        self._flush()
        if not self._writable and not self.transport.is_closing():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def close(self) -> None:
        """Close once everything queued was written."""
        self._flush()
        self.transport.close()

    def _fail(self, request_id: Id | msgspec.UnsetType, error: MeshError) -> None:
        """Answer a request with this error. A notification is answered by nothing."""
        if request_id is not msgspec.UNSET:
            self.send({"jsonrpc": "2.0", "id": request_id, "error": error.to_rpc()})


def _id_of(line: bytes) -> Id:
    """The id of something that is JSON but no request, so that its sender knows which one failed."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    request_id = found.get("id") if isinstance(found, dict) else None
    return request_id if isinstance(request_id, int | str | float) else None
