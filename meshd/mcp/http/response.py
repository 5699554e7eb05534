"""What became of a response. Mail in it is read when it was written to a client that is still there.

A response of HTTP may carry many answers (SSE) or none; a client may go before, between or after them. So what is
written is compared with what was handed over. The SDK ends a response when its client goes; that ends what the
client waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshd.errors import MeshError
from meshd.mcp.http.delivered import acknowledged

# Where an exchange, and the connection's transport, are found in a scope of ASGI.
EXCHANGE, TRANSPORT = "agent-mesh.exchange", "agent-mesh.transport"
BODY_TIMEOUT = 60.0
# What the SDK raises in a request whose session, or whose client, has gone.
ENDS = (anyio.ClosedResourceError, anyio.BrokenResourceError, ClientDisconnect)
GONE = "the client went away before this was answered"

Settle = Callable[[bool], None]


class Interrupted(MeshError):
    """Nobody waits for this call any more, or the server ends."""

    kind = "interrupted"


class _Result(msgspec.Struct):
    structured: Any = msgspec.field(name="structuredContent", default=None)


class _Answer(msgspec.Struct):
    result: _Result | None = None


class Exchange:
    """One request of HTTP and its response."""

    def __init__(self) -> None:
        self._handed: list[tuple[dict[str, Any], Settle]] = []
        self._waiting: set[anyio.CancelScope] = set()
        self._at_end: list[Callable[[], None]] = []
        self._ended = ""

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """What runs inside is cancelled when the exchange ends. Raises `Interrupted` then."""
        if not self._ended:
            with anyio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    yield
                finally:
                    self._waiting.discard(scope)
            if not scope.cancelled_caught:
                return
        raise Interrupted(self._ended, "Call the tool again.")

    def hand_over(self, result: dict[str, Any], settle: Settle) -> None:
        """This result, with mail in it, is to go out. `settle` is called once: whether it was written."""
        if self._ended:
            settle(False)
        else:
            self._handed.append((result, settle))

    def at_end(self, callback: Callable[[], None]) -> None:
        if self._ended:
            callback()
        else:
            self._at_end.append(callback)

    def carried_by(self, body: bytes) -> Settle | None:
        """What is to be settled once this piece of the response is out, if it is an answer with mail in it."""
        if not self._handed or not body or (answer := _answer(body)) is None:
            return None
        for k, (result, settle) in enumerate(self._handed):
            if answer == result:
                del self._handed[k]
                return settle
        return None

    def interrupt(self, why: str) -> int:
        """End the calls that are waited for, and how many. Those that can still be answered are: with the reason."""
        self._ended = self._ended or why
        waiting = list(self._waiting)
        for scope in waiting:
            scope.cancel()
        return len(waiting)

    def end(self) -> None:
        """Nothing goes out any more."""
        self.interrupt(GONE)
        for _, settle in self._handed:
            settle(False)
        self._handed.clear()
        for callback in self._at_end:
            callback()
        self._at_end.clear()


def _answer(body: bytes) -> Any:
    """The structured result in a piece of a response: a whole JSON body, or one event of SSE."""
    if not body.startswith(b"{"):
        start = body.find(b"data: ") + len(b"data: ")
        body = body[start : body.find(b"\n", start)]
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.MsgspecError:
        return None
    return answer.result.structured if answer.result is not None else None


class HandingOver:
    """ASGI: gives each request its `Exchange`, and tells that what became of the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: set[_Wire] = set()
        self._moved = asyncio.Event()  # something has gone out, or has ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope[EXCHANGE] = Exchange()
        wire = _Wire(exchange, scope["state"][TRANSPORT], receive, send, self._moved)
        self._open.add(wire)
        try:
            await self._app(scope, wire.receive, wire.send)
            await wire.finish()
        except ENDS:
            # The SDK answers that it has taken a message, and finds only then that the session has ended.
            await wire.finish()
        finally:
            self._open.discard(wire)
            self._moved.set()
            exchange.end()

    async def interrupt(self, why: str) -> None:
        """Answer all calls that wait with this, and let go of those who have not said yet what they want.

        Returns when all answers are out.
        """
        for wire in list(self._open):
            wire.interrupt(why)
        while any(wire.owed > 0 for wire in self._open):
            self._moved.clear()
            await self._moved.wait()


class _Wire:
    """Both directions of one exchange. `owed`: so many calls were interrupted, whose answers are not out yet."""

    def __init__(
        self, exchange: Exchange, transport: asyncio.Transport, receive: Receive, send: Send, moved: asyncio.Event
    ) -> None:
        self.owed = 0
        self._moved = moved
        self._exchange = exchange
        self._transport = transport
        self._receive = receive
        self._send = send
        self._begun = self._complete = False
        self._body_until: float | None = asyncio.get_running_loop().time() + BODY_TIMEOUT

    def interrupt(self, why: str) -> None:
        self.owed = self._exchange.interrupt(why)
        if self._body_until is not None:
            self._transport.abort()

    async def receive(self) -> Message:
        try:
            async with asyncio.timeout_at(self._body_until):
                message = await self._receive()
        except TimeoutError:
            self._transport.abort()  # it announced more than it sends
            message = await self._receive()
        if not message.get("more_body", False):
            self._body_until = None
        return message

    async def finish(self) -> None:
        """End a response that its maker has left unfinished: its session ended under it."""
        if self._begun and not self._complete:
            await self.send({**_NOTHING, "more_body": False})

    async def send(self, message: Message) -> None:
        if self._complete:
            return
        self._begun = True
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        settle = self._exchange.carried_by(message.get("body", b""))
        if settle is None:
            await self._send(message)
        else:
            taken = False
            try:
                taken = await self._hand_over(message)
            finally:
                settle(taken)
            if self._complete:
                await self._send({**_NOTHING, "more_body": False})
        if self.owed and message.get("body"):
            self.owed -= 1
            self._moved.set()

    async def _hand_over(self, message: Message) -> bool:
        """Send this piece of the response, and wait until the client has taken it, or has gone."""
        await self._send(_NOTHING)  # returns when all before it has left this process
        if self._transport.is_closing():
            return False
        await self._send({**message, "more_body": True})
        if self._transport.get_write_buffer_size():
            await self._send(_NOTHING)
            if self._transport.is_closing():
                return False
        return await acknowledged(self._transport)


_NOTHING: Message = {"type": "http.response.body", "body": b"", "more_body": True}
