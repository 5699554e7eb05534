"""How much is read at once: a reply has a bound in bytes, and a batch of entries is kept well below it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from redis import exceptions as rx
from redis.asyncio.connection import DefaultParser

from meshd.errors import StoreError
from meshd.store.replies import RawEntries

# Bytes of one reply that a reader of a stream takes: some thirty of the largest messages that are sent, and while it
# is read it stands in memory twice. What is larger is asked for in smaller pieces.
BOUND = 32 << 20
_PIECE = 64 << 10
_FULL, _SMALL = 4 << 20, 1 << 20  # bytes of a batch above which fewer entries are asked for, and below which more


class TooLarge(StoreError):
    """A reply of more bytes than we take. The connection is closed; asking for less may do."""


class Budget:
    """How many entries a reader of one stream asks for, `most` at most, so that a batch has some megabytes.

    It begins with one, for nobody knows how large they are, and a store gets ready all that is asked for before it
    sends a byte. Kept across connections. After `TooLarge` ask `Link.sizes`, and tell them by `known`.
    """

    def __init__(self, most: int) -> None:
        self.count, self.most = 1, most

    def took(self, found: RawEntries) -> None:
        """A batch was read: half as many next time if it was large, more if it was small, all that come after none."""
        if not found:
            self.count = self.most
            return
        size = sum(sum(map(len, raw)) for _, raw in found if raw is not None)
        if size > _FULL:
            self.count = max(1, len(found) // 2)
        elif self.count < self.most and size < _SMALL:
            self.count = min(self.most, self.count * 4)

    def known(self, sizes: list[int]) -> bool:
        """The sizes of what comes next: ask for as many as fit. False if not even the first may be read."""
        if not sizes:
            return True
        if sizes[0] > BOUND // 2:
            self.count = 1
            return False
        left, fitting = _FULL, 0
        for size in sizes:
            left -= size
            if left < 0:
                break
            fitting += 1
        self.count = min(self.most, max(1, fitting))
        return True


class BoundedParser(DefaultParser):  # type: ignore[misc, valid-type]
    """The parser of a connection, which gives up a reply at `bound` bytes: they are never all in memory."""

    def __init__(self, socket_read_size: int, bound: int) -> None:
        super().__init__(socket_read_size=socket_read_size)
        self._bound = bound
        self.taken = 0  # bytes since the last reply began to be waited for

    def read_response(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """A coroutine of redis-py's own, with none around it: it is called for every reply."""
        self.taken = 0
        return super().read_response(*args, **kwargs)  # type: ignore[no-any-return]

    async def read_from_socket(self) -> bool:
        """Some more bytes of the reply. Raises `TooLarge`."""
        if self.taken > self._bound:
            self._reader = None  # at once, not when the connection is forgotten
            raise TooLarge(
                f"a reply of the store is larger than {self._bound >> 20} MiB, and was not read",
                "meshctl doctor names what is in the way",
            )
        stream = getattr(self, "_stream", None)
        feed = getattr(getattr(self, "_reader", None), "feed", None)
        if stream is None or feed is None:  # another redis-py than the one that was tried: it works without a bound
            return bool(await super().read_from_socket())
        data: bytes = await stream.read(_PIECE)
        if not data:
            raise rx.ConnectionError("Connection closed by server.")
        self.taken += len(data)
        feed(data)
        return True
