"""What passes through a `Way`: the two sides of each connection, and what is late on purpose."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator


class Side:
    """One of the two connections of a pair, and what waits to be written to it."""

    def __init__(self, connection: socket.socket, *, of_store: bool) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.of_store = of_store
        self.waiting = bytearray()
        self.ended = False  # nothing more comes from it
        self.peer: Side
        self.silent = False  # half-open: it hangs for ever, also when the way is whole again
        self.said = b""  # what came from it last
        self.marked = False  # the reply to what came from it last breaks it
        self.doomed = False  # reset as soon as nothing waits for it any more


class Late:
    """What is delivered later, in the order in which it came."""

    def __init__(self) -> None:
        self._queue: deque[tuple[float, Side, bytes]] = deque()  # when it is due, to whom, what

    def put(self, seconds: float, to: Side, data: bytes) -> None:
        self._queue.append((time.monotonic() + seconds, to, data))

    def wait(self) -> float | None:
        """Seconds until something is due; None if nothing is late."""
        return max(0.0, min(due for due, _, _ in self._queue) - time.monotonic()) if self._queue else None

    def has(self, to: Side) -> bool:
        return any(side is to for _, side, _ in self._queue)

    def due(self, to: Side | None = None) -> Iterator[tuple[Side, bytes]]:
        """Take out what is due. Of `to` all, so that nothing overtakes it."""
        now, queue = time.monotonic(), self._queue
        self._queue = deque()
        for due, side, data in queue:
            if due <= now or side is to:
                yield side, data
            else:
                self._queue.append((due, side, data))
