"""One kind of an agent's unread messages in their order: chunks of them in memory, and between those segments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from meshd.core.message import Message, entry_key
from meshd.core.records import Position, Segment


class Bounds(NamedTuple):
    """Of unread mail in memory. A chunk, and so a segment, has `messages`, or texts of `size` bytes, whichever comes
    first. Of each queue that much is kept in memory `chunks` times; of what is more, whole chunks are put on the disk.
    """

    messages: int = 512
    size: int = 512 << 10
    chunks: int = 4


BOUNDS = Bounds()


def _key(place: Position) -> tuple[int, int]:
    return entry_key(place.at)


class Chunk:
    """Messages in memory that follow one another. `size`: bytes of their texts.

    `leaving`: the segment that is being made of them. From then on they are as on the disk for whoever wants them.
    """

    __slots__ = ("leaving", "messages", "size")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.messages = {message.id: message for message in messages}
        self.size = sum(message.size for message in self.messages.values())
        self.leaving: Segment | None = None


Part = Chunk | Segment


class Queue:
    """One kind of unread messages, oldest first. `hot`: how many are in memory, `size` bytes; `cold`: on the disk."""

    __slots__ = ("cold", "hot", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.hot = self.size = self.cold = 0

    def oldest(self) -> Position | None:
        """Where the first of them stands: everything before it was read."""
        for part in self.parts:
            if isinstance(part, Segment):
                return part.first
            first = next(iter(part.messages.values()))
            return Position(first.at, first.index)
        return None

    def lowest(self) -> Position | None:
        """Where that one stands whose entry id is the least: after the stream went back it may not be the first."""
        places = [
            Position(part.low, part.first.index)
            if isinstance(part, Segment)
            else min((Position(one.at, one.index) for one in part.messages.values()), key=_key)
            for part in self.parts
        ]
        return min(places, key=_key, default=None)

    def walk(self, looked: Mapping[int, Collection[Message]]) -> Iterator[Message | Segment]:
        """In order; a segment stands for its messages, unless `looked` has them by its number."""
        for part in self.parts:
            segment = part.leaving if isinstance(part, Chunk) else part
            if isinstance(part, Chunk) and segment is None:
                yield from part.messages.values()
            elif segment is not None and segment.number in looked:
                yield from looked[segment.number]
            elif segment is not None:
                yield segment

    def in_memory(self) -> Iterator[Message]:
        for part in self.parts:
            if isinstance(part, Chunk):
                yield from part.messages.values()

    def replace(self, part: Part, *others: Part) -> None:
        k = self._place(part)
        self.parts[k : k + 1] = others

    def cut(self, chunk: Chunk, message_id: str) -> int:
        """Where in the parts that message begins; its chunk is parted there."""
        k = self._place(chunk)
        ids = list(chunk.messages)
        if ids[0] == message_id:
            return k
        head = Chunk(chunk.messages.pop(before) for before in ids[: ids.index(message_id)])
        chunk.size -= head.size
        self.parts.insert(k, head)
        return k + 1

    def _place(self, part: Part) -> int:
        return next(k for k, one in enumerate(self.parts) if one is part)
