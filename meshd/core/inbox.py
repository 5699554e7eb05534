"""What was received, what was read, and what came twice. What is missing: losses.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from meshd.core.losses import Losses
from meshd.core.message import Message, entry_before, entry_key, is_entry_id
from meshd.core.records import UNKNOWN, Batch, Moved, Position, Read, Snapshot, Unread

SEEN_WINDOW = 4096  # more than a stream's bound, so that reading a stream again from its start finds them all
READ_ABOVE = 1000
_REQUEST = "?"  # marks the sender of a request among the remembered ids; no name contains it


class Origin(NamedTuple):
    """Who sent a message, whether it was a request, and what it was about if it was a re-ping."""

    sender: str
    request: bool = False
    about: str | None = None


def origin_of(message: Message) -> str:
    """What is remembered of a message: its `Origin`, in a string."""
    return _REQUEST * message.request + message.sender + (f" {message.about}" if message.about else "")


class StreamInfo(NamedTuple):
    """XINFO STREAM, as far as loss needs it."""

    length: int = 0
    added: int = 0
    last: str = "0-0"


class Inbox:
    """State of one agent's mail. Methods named `apply_*` change it; the others decide or tell."""

    def __init__(self) -> None:
        self.position = Position()
        self.group: str | None = None
        self.unread: dict[str, Message] = {}
        self.unread_bytes = 0  # of their texts
        # The same messages by where they came from: each stream's oldest unread one is asked for at every step.
        self._private: dict[str, Message] = {}
        self._broadcasts: dict[str, Message] = {}
        self.seen: dict[str, str] = {}
        # Read out of order: (entry id, message id) above the oldest unread one; private mail, and broadcasts.
        self.read_above: list[tuple[str, str]] = []
        self.group_above: list[tuple[str, str]] = []
        # Ids that were read out of order where this name was hosted before: told on when it moves again.
        self.read_elsewhere: list[str] = []
        self.losses = Losses()
        self._handed: set[str] = set()

    # --- deciding ---

    def trimmed(self, info: StreamInfo) -> int:
        """How many entries were trimmed before they were read."""
        return max(0, info.added - info.length - self.ordinal(info))

    def ordinal(self, info: StreamInfo | None) -> int:
        """How many entries were added up to the cursor.

        After a stream went back it is not known, and what stands at its start is what was received before:
        so what trimming takes of that until it is read again is no loss.
        """
        if self.position.index == UNKNOWN:
            return info.added - info.length if info is not None else 0
        return self.position.index

    def went_back(self, info: StreamInfo) -> bool:
        """Whether the stream lost its end (flush, restore, failover): the cursor would wait for ever."""
        behind = entry_key(info.last) < entry_key(self.position.at)
        return behind or info.added < self.position.index

    def has_all(self, info: StreamInfo) -> bool:
        """Whether these counts are those of a stream that was read to its end, and brought nothing since."""
        return (info.last, info.added) == (self.position.at, self.position.index)

    def is_behind(self, position: Position) -> bool:
        return (entry_key(self.position.at), self.position.index) < (entry_key(position.at), position.index)

    def is_duplicate(self, message_id: str) -> bool:
        return message_id in self.seen or message_id in self.unread

    def origin(self, message_id: str) -> Origin | None:
        """Where a message that was received here came from; None if it is not known."""
        message = self.unread.get(message_id)
        remembered = origin_of(message) if message is not None else self.seen.get(message_id)
        if not remembered:
            return None
        sender, _, about = remembered.removeprefix(_REQUEST).partition(" ")
        return Origin(sender, remembered.startswith(_REQUEST), about or None)

    # --- handing over ---

    def take(self, limit: int, max_bytes: int, *, direct: bool = False) -> list[Message]:
        """The oldest unread messages that nobody holds; they stay unread until confirmed. `direct`: no broadcasts."""
        unread = self._private if direct else self.unread
        free = (message for message in unread.values() if message.id not in self._handed)
        taken = _within(free, limit, max_bytes)
        self._handed.update(message.id for message in taken)
        return taken

    def has_free(self, *, direct: bool = False) -> bool:
        """Whether `take` would find something."""
        unread = self._private if direct else self.unread
        return any(message_id not in self._handed for message_id in unread)

    @property
    def free(self) -> int:
        """How many unread messages nobody holds."""
        return len(self.unread) - sum(held in self.unread for held in self._handed)

    def peek(self, limit: int, max_bytes: int) -> list[Message]:
        """The oldest unread messages, without taking them."""
        return _within(self.unread.values(), limit, max_bytes)

    def release(self, ids: Iterable[str], lost: int = 0) -> None:
        """The hand-over failed: the messages can be taken again, and of so many losses somebody is still to be told."""
        self._handed.difference_update(ids)
        self.losses.release(lost)

    # --- applying ---

    def apply_batch(self, batch: Batch) -> None:
        if batch.position is not None:
            self.position = batch.position
        if batch.group is not None:
            self.group = batch.group
        for message in batch.messages:
            self._add(message)
        for message_id in batch.seen:
            self._remember(message_id, batch.origins.get(message_id, ""))
        self.losses.apply_batch(batch)

    def apply_read(self, read: Read) -> None:
        for message_id in read.ids:
            message = self._drop(message_id)
            if message is not None:
                self._remember(message_id, origin_of(message))
                above = self.group_above if message.kind == "broadcast" else self.read_above
                above.append((message.at, message_id))
        self._handed.difference_update(read.ids)
        self.losses.told(read.lost)
        self._trim_read_above()
        if not self.unread:
            self.read_elsewhere = []

    def apply_moved(self, moved: Moved) -> None:
        if not all(map(is_entry_id, (moved.position.at, moved.read_to, moved.group or "0-0"))):
            return  # a stranger's, written down when such were believed: the store would refuse to read from there
        self.losses.apply_moved(moved)
        # Where the name goes on elsewhere than it stopped here, a gap in the counts is what was read there.
        if self.is_behind(moved.position):
            self.position = moved.position
            self.losses.forget_counts(broadcasts=False)
        if moved.group is not None:
            if entry_key(moved.group) > entry_key(self.group or "0-0"):
                self.losses.forget_counts(broadcasts=True)
            self.group = moved.group
        read_to = entry_key(moved.read_to)
        read_ids = set(moved.read_ids)
        for message in list(self.unread.values()):
            elsewhere = message.kind != "broadcast" and entry_key(message.at) <= read_to
            if elsewhere or message.id in read_ids:
                self._drop(message.id)
                self._remember(message.id, origin_of(message))
        for message_id in moved.read_ids:
            if message_id not in self.seen:
                self._remember(message_id, "")
        self.read_elsewhere = moved.read_ids[-READ_ABOVE:]

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        # From an earlier place that cannot be one (see `apply_moved`) all that the store has is read again.
        self.position = snapshot.position if is_entry_id(snapshot.position.at) else Position("0-0", UNKNOWN)
        self.group = snapshot.group if snapshot.group is None or is_entry_id(snapshot.group) else "0-0"
        self.seen = dict(snapshot.seen)
        self.read_above = list(snapshot.read_above)
        self.group_above = list(snapshot.group_above)
        self.read_elsewhere = list(snapshot.read_elsewhere)
        self.losses.apply_snapshot(snapshot)
        for message_id in list(self.unread):
            self._drop(message_id)

    def apply_unread(self, unread: Unread) -> None:
        for message in unread.messages:
            self._add(message)

    def _stream_of(self, message: Message) -> dict[str, Message]:
        return self._broadcasts if message.kind == "broadcast" else self._private

    def _add(self, message: Message) -> None:
        before = self.unread.get(message.id)
        self.unread[message.id] = self._stream_of(message)[message.id] = message
        self.unread_bytes += message.size - (before.size if before is not None else 0)

    def _drop(self, message_id: str) -> Message | None:
        message = self.unread.pop(message_id, None)
        if message is not None:
            del self._stream_of(message)[message_id]
            self.unread_bytes -= message.size
        return message

    def _remember(self, message_id: str, sender: str) -> None:
        self.seen.pop(message_id, None)
        self.seen[message_id] = sender
        while len(self.seen) > SEEN_WINDOW:
            del self.seen[next(iter(self.seen))]

    # --- telling ---

    def oldest_unread(self) -> Message | None:
        """The oldest unread private message: everything before it was read."""
        return next(iter(self._private.values()), None)

    def oldest_broadcast(self) -> Message | None:
        return next(iter(self._broadcasts.values()), None)

    def read_position(self) -> Position:
        """Up to where the private stream was read without a hole."""
        oldest, here = self.oldest_unread(), entry_key(self.position.at)
        if oldest is not None and entry_key(oldest.at) > here:
            # The stream went back and is read again: what comes now may have lower ids than what is still unread.
            oldest = min(self._private.values(), key=lambda message: entry_key(message.at))
        if oldest is None or entry_key(oldest.at) > here:
            return self.position
        return Position(entry_before(oldest.at), max(0, oldest.index - 1))

    def read_group(self) -> str | None:
        """Up to where the broadcasts were read without a hole."""
        oldest = self.oldest_broadcast()
        return entry_before(oldest.at) if oldest else self.group

    def left_behind(self, private: str, group: str) -> list[Message]:
        """Unread messages that the store has no more: from before the first entry that each of the streams has."""
        first, first_broadcast = entry_key(private), entry_key(group)
        return [
            message
            for message in self.unread.values()
            if entry_key(message.at) < (first_broadcast if message.kind == "broadcast" else first)
        ]

    def read_beyond(self) -> list[str]:
        """Ids that were read above `read_position`: another daemon must not hand them over again."""
        return [*self.read_elsewhere, *(message_id for _, message_id in (*self.read_above, *self.group_above))]

    def _trim_read_above(self) -> None:
        self.read_above = _above(self.read_above, self.oldest_unread())
        self.group_above = _above(self.group_above, self.oldest_broadcast())


def _above(pairs: list[tuple[str, str]], oldest: Message | None) -> list[tuple[str, str]]:
    """Those that stand above the oldest unread message, if there is one."""
    if oldest is None:
        return []
    floor = entry_key(oldest.at)
    return [pair for pair in pairs if entry_key(pair[0]) > floor][-READ_ABOVE:]


def _within(messages: Iterable[Message], limit: int, max_bytes: int) -> list[Message]:
    """The first `limit` messages, and none after their texts have reached `max_bytes`: answers are bounded."""
    found: list[Message] = []
    size = 0
    for message in messages:
        if len(found) >= limit or size >= max_bytes:
            break
        found.append(message)
        size += len(message.text)
    return found
