"""One kind of an agent's unread messages in their order: chunks of them in memory, and between those segments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from meshd.core.message import Message, entry_key
from meshd.core.records import Position, Segment


class Bounds(NamedTuple):
    """Of unread mail in memory. A chunk, and so a segment, has `messages`, or texts of `size` bytes, whichever comes
    first. Of each queue that much is kept in memory `chunks` times; of what is more, whole chunks are put on the disk.
    A queue is crowded when it has `crowd` times as much as is kept: no more is taken in until the disk has some of it.
    """

    messages: int = 512
    size: int = 512 << 10
    chunks: int = 4
    crowd: int = 8


BOUNDS = Bounds()
READ_ABOVE = 1000


def _key(place: Position) -> tuple[int, int]:
    return entry_key(place.at)


def _place(message: Message) -> Position:
    return Position(message.at, message.index)


def _lowest(part: Part) -> Position:
    if isinstance(part, Segment):
        return Position(part.low, part.first.index)
    return min(map(_place, part.messages.values()), key=_key)


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

    __slots__ = ("_highest", "cold", "hot", "mixed", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.mixed = False  # they are not in the order of their entry ids
        self._highest = (0, 0)
        self.hot = self.size = self.cold = 0

    def exceeds(self, most: Bounds, times: int = 1) -> bool:
        """Whether it has more in memory than so many times what is kept there."""
        chunks = most.chunks * times
        return self.hot > most.messages * chunks or self.size > most.size * chunks

    def is_full(self, chunk: Chunk, most: Bounds) -> bool:
        """Whether the next message needs another chunk. When more comes than the disk takes, chunks are larger: each
        costs it the same few syncs.
        """
        times = most.chunks if self.exceeds(most, most.crowd // 2) else 1
        return len(chunk.messages) >= most.messages * times or chunk.size >= most.size * times

    def oldest(self) -> Position | None:
        """Where that one stands whose entry id is the least: everything before it was read."""
        if self.mixed:
            return min(map(_lowest, self.parts), key=_key, default=None)
        for part in self.parts:
            return part.first if isinstance(part, Segment) else _place(next(iter(part.messages.values())))
        return None

    def came(self, message: Message) -> None:
        """It is the newest. After the stream went back, or from another daemon, it may have stood before others."""
        key = entry_key(message.at)
        if not self.parts:
            self.mixed = False
        elif key < self._highest:
            self.mixed = True
            return
        self._highest = key

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

    def between(self, after: str, before: str, read: Iterable[tuple[str, str]]) -> int:
        """How many stand between these entries; `read` are others, by their entry ids, that do so no more."""
        low, high = entry_key(after), entry_key(before)
        segments = (part for part in self.parts if isinstance(part, Segment))
        places = [*(message.at for message in self.in_memory()), *(at for at, _ in read)]
        cold = sum(part.count for part in segments if low < entry_key(part.low) and entry_key(part.high) < high)
        return cold + sum(low < entry_key(at) < high for at in places)

    def replace(self, part: Part, *others: Part) -> None:
        k = self._where(part)
        self.parts[k : k + 1] = others

    def cut(self, chunk: Chunk, message_id: str) -> int:
        """Where in the parts that message begins; its chunk is parted there."""
        k = self._where(chunk)
        ids = list(chunk.messages)
        if ids[0] == message_id:
            return k
        head = Chunk(chunk.messages.pop(before) for before in ids[: ids.index(message_id)])
        chunk.size -= head.size
        self.parts.insert(k, head)
        return k + 1

    def _where(self, part: Part) -> int:
        return next(k for k, one in enumerate(self.parts) if one is part)


def above(pairs: list[tuple[str, str]], oldest: Position | None) -> list[tuple[str, str]]:
    """Those that stand above the oldest unread message, if there is one."""
    if oldest is None:
        return []
    floor = entry_key(oldest.at)
    return [pair for pair in pairs if entry_key(pair[0]) > floor][-READ_ABOVE:]


def within(messages: Iterable[Message], limit: int, max_bytes: int) -> list[Message]:
    """The first `limit` messages, and none after their texts have reached `max_bytes`: answers are bounded."""
    found: list[Message] = []
    size = 0
    for message in messages:
        if len(found) >= limit or size >= max_bytes:
            break
        found.append(message)
        size += len(message.text)
    return found
