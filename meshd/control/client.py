"""What the daemon remembers of one client: what it was handed, and whether it has taken that.

A program confirms what it was given, or leaves that to us: then an answer counts as taken once it is out of the
socket, which the kernel tells. `meshctl` confirms each piece after it has written it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket

from meshd.commands.base import Printed
from meshd.control.connection import Connection
from meshd.errors import MeshError
from meshd.hosting.sessions import Session
from meshd.observing.background import Background
from meshd.receiving.handover import Delivery
from meshd.system.sockets import untaken

# After this long, an answer that the client has taken out of the socket counts as handed over.
_SETTLE = 1.0
# Seconds that a client which has closed its half may take to read its last answer.
_LINGER = 5.0
# Characters that go to `meshctl` in one piece.
CHUNK = 128 * 1024


class Client:
    """What the daemon remembers of one connection: its name, and what it was handed and has not confirmed."""

    def __init__(self, connection: Connection, background: Background) -> None:
        """`background`: what outlives the connection for a moment is done there."""
        self.connection = connection
        self.name: str | None = None
        self.session: Session | None = None
        self.receipts: dict[str, Delivery] = {}
        self._implicit: list[Delivery] = []
        self._gone = False
        self._background = background
        self._acks: dict[int, asyncio.Future[None]] = {}
        self._last_ack = 0

    # --- programs ---

    def hand_over(self, handover: Delivery, *, explicit: bool) -> str | None:
        """Remember an answer with mail in it. Explicit: until `confirm`. Else: until it was taken, or at once."""
        if self._gone:
            handover.release()
            return None
        if explicit:
            receipt = secrets.token_hex(8)
            self.receipts[receipt] = handover
            return receipt
        if handover.awaited:  # a program may have other things to do first than to read its answer
            self._confirm(handover)
            return None
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
            self._confirm(handover)

    def _confirm(self, handover: Delivery) -> None:
        self._background.start(_confirmed(handover), "confirming what was taken")

    def _if_taken(self) -> None:
        self.asks_again()
        if self._implicit and not self.connection.transport.is_closing():
            asyncio.get_running_loop().call_later(_SETTLE, self._if_taken)

    def gone(self, clean: bool) -> None:
        """The connection ended; `clean` if nothing that was sent stayed unread."""
        self._gone = True
        if clean and self._implicit:
            fd = os.dup(self.connection.transport.get_extra_info("socket").fileno())
            self._background.start(_linger(self._implicit, fd), "waiting whether a last answer is taken")
            self._implicit = []
        for handover in (*self._implicit, *self.receipts.values()):
            handover.release()
        self._implicit.clear()
        self.receipts.clear()
        for future in self._acks.values():
            future.cancel()

    # --- command lines ---

    async def write(self, printed: Printed) -> None:
        """Have the client write this, and wait until it has."""
        for fd, text in ((1, printed.out), (2, printed.err)):
            for start in range(0, len(text), CHUNK):
                self._last_ack = n = self._last_ack + 1
                future = self._acks[n] = asyncio.get_running_loop().create_future()
                params = {"fd": fd, "text": text[start : start + CHUNK], "ack": n}
                self.connection.send({"jsonrpc": "2.0", "method": "cli.write", "params": params})
                try:
                    await future
                finally:
                    del self._acks[n]

    def acknowledged(self, n: int) -> None:
        future = self._acks.get(n)
        if future is not None and not future.done():
            future.set_result(None)


def _unread_by_peer(transport: asyncio.Transport) -> int:
    """Bytes that were sent and that the peer has not taken out of the socket yet; 0 if unknown."""
    if transport.get_write_buffer_size():
        return transport.get_write_buffer_size()
    return untaken(transport.get_extra_info("socket").fileno())


async def _linger(handovers: list[Delivery], fd: int) -> None:
    """The connection ended with a last answer in it: confirm if the client read that, release if it did not."""
    with socket.socket(fileno=fd) as ended:
        with contextlib.suppress(OSError):
            ended.shutdown(socket.SHUT_WR)
        taken = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while not (taken := untaken(fd) == 0):
                    await asyncio.sleep(_LINGER / 100)  # nothing tells that the peer has read
        # A peer that closes with unread bytes in its queue resets the connection.
        taken = taken and ended.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    for handover in handovers:
        if taken:
            await _confirmed(handover)
        else:
            handover.release()


async def _confirmed(handover: Delivery) -> None:
    """Read, as far as the disk and the lease allow; else it is unread again, which whoever reads next is told."""
    with contextlib.suppress(MeshError):
        await handover.confirm()
