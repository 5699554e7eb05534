"""The unread messages of one agent in their order: chunks of them in memory, and between those segments on the disk.

What is read next and what came last is in memory; what lies between may be on the disk, which spilling.py decides.
Private mail and broadcasts are two queues, so that whoever takes only the one need not look through the other.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from meshd.core.message import Message, entry_key
from meshd.core.queue import BOUNDS, Bounds, Chunk, Queue
from meshd.core.records import Segment

T = TypeVar("T")

# Ids of messages on the disk that are known: of the newest of either kind, as many as `SEEN_WINDOW`.
RECENT = 4096
_ENVELOPE = 150  # bytes that a message takes in the journal, beside its text
_TOLD = 300  # bytes that what is told of a segment takes there


class Overtaken(NamedTuple):
    """Segments of which all messages were read elsewhere, and those of which some were."""

    whole: list[Segment]
    partly: list[Segment]


class UnreadMail(Mapping[str, Message]):
    """All unread mail of one agent. `len` is all of it; as a mapping it has, by their ids, those in memory, in order.

    Private mail and broadcasts are in order each, and among one another as the store's clock says.
    """

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.private = Queue()
        self.broadcasts = Queue()
        self.segments: dict[int, Segment] = {}
        self.last = 0  # number of the newest segment that there ever was
        self.wanted = 0  # callers who bring mail into memory at this moment: meanwhile none is put on the disk
        self._bounds = bounds
        self._chunks: dict[str, Chunk] = {}  # by the id of each message that is in memory
        self._recent: dict[str, Segment] = {}  # by the ids that the newest segments tell
        self._telling: dict[int, Segment] = {}  # those segments

    # --- telling ---

    def __len__(self) -> int:
        return len(self._chunks) + self.private.cold + self.broadcasts.cold

    def __contains__(self, message_id: object) -> bool:
        return message_id in self._chunks

    def __getitem__(self, message_id: str) -> Message:
        return self._chunks[message_id].messages[message_id]

    def __iter__(self) -> Iterator[str]:
        return (message.id for message in self.in_memory())

    def in_memory(self) -> Iterator[Message]:
        """Those that are not on the disk, in order."""
        return self._merged(lambda queue: queue.in_memory(), _place)

    def walk(
        self, looked: Mapping[int, Collection[Message]] | None = None, *, direct: bool = False
    ) -> Iterator[Message | Segment]:
        """As the queue's, of both, or with `direct` of private mail alone."""
        found = looked or {}
        if direct:
            return self.private.walk(found)
        return self._merged(lambda queue: queue.walk(found), _place)

    def _merged(self, parts: Callable[[Queue], Iterator[T]], key: Callable[[T], tuple[int, int]]) -> Iterator[T]:
        used = [parts(queue) for queue in (self.private, self.broadcasts) if queue.parts]
        return used[0] if len(used) == 1 else heapq.merge(*used, key=key)

    @property
    def hot(self) -> int:
        """How many are in memory."""
        return len(self._chunks)

    @property
    def size(self) -> int:
        """Bytes of the texts in memory."""
        return self.private.size + self.broadcasts.size

    @property
    def journaled(self) -> int:
        """About how many bytes of the journal are for it: messages may be short, and many."""
        return self.size + _ENVELOPE * self.hot + _TOLD * len(self.segments)

    def recalls(self, message_id: str) -> str | None:
        """What is remembered of a message on the disk; None of one that is none, or came too long ago."""
        segment = self._recent.get(message_id)
        return None if segment is None else segment.ids[message_id]

    def recent(self) -> list[str]:
        """Ids of the newest messages: those in memory, and those on the disk as far as they are known."""
        return [*self._chunks, *self._recent]

    def senders(self) -> set[str]:
        """Who has sent it; of mail on the disk as far as its segments tell."""
        told = {sender for segment in self.segments.values() for sender in segment.senders}
        return told.union(message.sender for message in self.in_memory())

    def surplus(self, held: Collection[str]) -> Chunk | None:
        """What is to be put on the disk: the newest chunk, but neither a queue's first nor its last, nor one of which a
        message is `held`. None while there is room in memory.
        """
        for queue in (self.private, self.broadcasts):
            if queue.exceeds(self._bounds):
                for k in range(len(queue.parts) - 2, 0, -1):
                    part = queue.parts[k]
                    if isinstance(part, Chunk) and not any(message_id in held for message_id in part.messages):
                        return part
        return None

    def is_crowded(self) -> bool:
        """Whether so much is in memory that some must go to the disk, or be read, before more may come."""
        return any(queue.exceeds(self._bounds, self._bounds.crowd) for queue in (self.private, self.broadcasts))

    def reached(self, private: tuple[int, int], group: tuple[int, int]) -> Overtaken:
        """Segments whose mail was read up to there, each place as `entry_key` gives it."""
        found = Overtaken([], [])
        for segment in self.segments.values():
            to = group if segment.broadcasts else private
            if entry_key(segment.high) <= to:
                found.whole.append(segment)
            elif entry_key(segment.low) <= to:
                found.partly.append(segment)
        return found

    def covering(self, messages: Iterable[Message]) -> list[Segment]:
        """Segments that may have one of them, by the places where they stood."""
        places: dict[bool, list[tuple[int, int]]] = {}
        for message in messages:
            places.setdefault(message.kind == "broadcast", []).append(entry_key(message.at))
        ranges = {broadcasts: (min(found), max(found)) for broadcasts, found in places.items()}
        return [
            segment
            for segment in self.segments.values()
            if (found := ranges.get(segment.broadcasts)) is not None
            and entry_key(segment.low) <= found[1]
            and entry_key(segment.high) >= found[0]
        ]

    # --- changing ---

    def add(self, message: Message) -> None:
        """As the newest; one that is there keeps its place."""
        queue = self._queue_of(message)
        before = self.get(message.id)
        if before is not None and self._queue_of(before) is queue:
            chunk = self._chunks[message.id]
            self._resize(queue, chunk, message.size - before.size)
        else:
            self.drop(message.id)
            queue.came(message)
            chunk = self._chunks[message.id] = self._last(queue)
            queue.hot += 1
            self._resize(queue, chunk, message.size)
        chunk.messages[message.id] = message

    def sort(self) -> None:
        """By their entry ids, for what is read again may belong before others; but not where some are on the disk."""
        for queue in (self.private, self.broadcasts):
            chunks = [part for part in queue.parts if isinstance(part, Chunk) and part.leaving is None]
            if not queue.mixed or len(chunks) < len(queue.parts):
                continue
            messages = sorted(queue.in_memory(), key=_place)
            queue.parts, queue.size, queue.hot = [], 0, 0
            for message in messages:
                del self._chunks[message.id]
            for message in messages:
                self.add(message)

    def drop(self, message_id: str) -> Message | None:
        """It is unread no more; None if it is not in memory."""
        chunk = self._chunks.pop(message_id, None)
        if chunk is None:
            return None
        message = chunk.messages.pop(message_id)
        queue = self._queue_of(message)
        queue.hot -= 1
        self._resize(queue, chunk, -message.size)
        if not chunk.messages:
            queue.replace(chunk)
        return message

    def spill(self, segment: Segment) -> None:
        """Its messages are in that segment now, in whose place it stands; without those, behind all others."""
        queue = self._queue(segment)
        first = next((message_id for message_id in segment.ids if message_id in self._chunks), None)
        k = len(queue.parts) if first is None else self._cut(queue, first)
        queue.parts.insert(k, segment)
        queue.cold += segment.count
        for message_id in segment.ids:
            self.drop(message_id)
        self.segments[segment.number] = segment
        self.last = max(self.last, segment.number)
        if segment.ids:
            self._telling[segment.number] = segment
            self._recent.update(dict.fromkeys(segment.ids, segment))
            self._forget_old(broadcasts=segment.broadcasts)

    def stay(self) -> None:
        """No chunk is leaving for the disk."""
        for queue in (self.private, self.broadcasts):
            for part in queue.parts:
                if isinstance(part, Chunk):
                    part.leaving = None

    def load(self, number: int, messages: Iterable[Message]) -> None:
        """The segment is no more, and these are in its place."""
        segment = self.segments.get(number)
        if segment is None:  # what told of it was damaged
            for message in messages:
                self.add(message)
            return
        chunk = Chunk(messages)
        for message_id in chunk.messages:
            self.drop(message_id)
        if chunk.messages:
            queue = self._queue(segment)
            queue.replace(segment, chunk, segment)
            queue.hot += len(chunk.messages)
            queue.size += chunk.size
            self._chunks.update(dict.fromkeys(chunk.messages, chunk))
        self.forget(segment)

    def forget(self, segment: Segment) -> None:
        """Nothing of that segment is unread any more."""
        queue = self._queue(segment)
        queue.replace(segment)
        queue.cold -= segment.count
        del self.segments[segment.number]
        self._forget_ids(segment)

    def clear(self, last: int = 0) -> None:
        """Nothing is unread; `last` as above."""
        self.private, self.broadcasts, self.last = Queue(), Queue(), last
        self.segments, self._chunks, self._recent, self._telling = {}, {}, {}, {}

    def _queue(self, segment: Segment) -> Queue:
        return self.broadcasts if segment.broadcasts else self.private

    def _queue_of(self, message: Message) -> Queue:
        return self.broadcasts if message.kind == "broadcast" else self.private

    def _last(self, queue: Queue) -> Chunk:
        """Where the next message of that queue belongs."""
        last = queue.parts[-1] if queue.parts else None
        if not isinstance(last, Chunk) or queue.is_full(last, self._bounds):
            last = Chunk()
            queue.parts.append(last)
        return last

    def _cut(self, queue: Queue, message_id: str) -> int:
        chunk = self._chunks[message_id]
        k = queue.cut(chunk, message_id)
        if k and isinstance(head := queue.parts[k - 1], Chunk):
            self._chunks.update(dict.fromkeys(head.messages, head))
        return k

    @staticmethod
    def _resize(queue: Queue, chunk: Chunk, size: int) -> None:
        chunk.size += size
        queue.size += size

    def _forget_old(self, *, broadcasts: bool) -> None:
        """Of the oldest segments no ids are kept: by their places, so that a compacted journal gives the same."""
        telling = [segment for segment in self._telling.values() if segment.broadcasts == broadcasts]
        telling.sort(key=lambda segment: (entry_key(segment.high), segment.number))
        known = sum(len(segment.ids) for segment in telling)
        for oldest in telling:
            known -= len(oldest.ids)
            if known < RECENT:
                return
            self._forget_ids(oldest)

    def _forget_ids(self, segment: Segment) -> None:
        for message_id in segment.ids:
            if self._recent.get(message_id) is segment:
                del self._recent[message_id]
        self._telling.pop(segment.number, None)
        segment.ids = {}


def _place(item: Message | Segment) -> tuple[int, int]:
    return entry_key(item.first.at if isinstance(item, Segment) else item.at)
