"""What was received, what was read, and what came twice. What is missing: losses.py."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from meshd.core.damage import Damage
from meshd.core.losses import Losses
from meshd.core.message import Message, entry_before, entry_key, is_entry_id
from meshd.core.origin import Origin, origin_from, origin_of
from meshd.core.queue import BOUNDS, READ_ABOVE, Bounds, Chunk, above, within
from meshd.core.records import (
    UNKNOWN,
    Batch,
    Damaged,
    Loaded,
    Moved,
    Position,
    Read,
    Segment,
    Snapshot,
    Spilled,
    Unread,
)
from meshd.core.seen import Seen
from meshd.core.unread import UnreadMail


class StreamInfo(NamedTuple):
    """XINFO STREAM, as far as loss needs it."""

    length: int = 0
    added: int = 0
    last: str = "0-0"


class Inbox:
    """State of one agent's mail. Methods named `apply_*` change it; the others decide or tell."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.position = Position()
        self.group: str | None = None
        self.unread = UnreadMail(bounds)
        self.seen = Seen()
        # Read out of order: (entry id, message id) above the oldest unread one; private mail, and broadcasts.
        self.read_above: list[tuple[str, str]] = []
        self.group_above: list[tuple[str, str]] = []
        # Ids that were read out of order where this name was hosted before: told on when it moves again.
        self.read_elsewhere: list[str] = []
        self.losses = Losses()
        self.damage = Damage()
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

    def between(self, after: str, before: str) -> int:
        """How many private messages between these entries are known, unread or read out of order."""
        return self.unread.private.between(after, before, self.read_above)

    def is_behind(self, position: Position) -> bool:
        return (entry_key(self.position.at), self.position.index) < (entry_key(position.at), position.index)

    def is_duplicate(self, message_id: str) -> bool:
        return message_id in self.seen or message_id in self.unread or self.unread.recalls(message_id) is not None

    def origin(self, message_id: str) -> Origin | None:
        """Where a message that was received here came from; None if it is not known."""
        remembered = self._unread_origin(message_id)
        return origin_from(self.seen.get(message_id) if remembered is None else remembered)

    def unread_from(self, message_id: str) -> str | None:
        """Who sent it, if it is unread, as far as is known."""
        origin = origin_from(self._unread_origin(message_id))
        return None if origin is None else origin.sender

    def _unread_origin(self, message_id: str) -> str | None:
        message = self.unread.get(message_id)
        return self.unread.recalls(message_id) if message is None else origin_of(message)

    def is_read(self, message_id: str) -> bool:
        """Whether a message that was on the disk was read meanwhile, under another entry or elsewhere."""
        return message_id in self.seen or message_id in self.read_elsewhere

    def surplus(self) -> Chunk | None:
        """Messages that are too many in memory, and can be put on the disk now."""
        return None if self.unread.wanted else self.unread.surplus(self._handed)

    # --- handing over ---

    def take(self, limit: int, max_bytes: int, *, direct: bool = False) -> list[Message]:
        """The oldest unread messages that nobody holds; they stay unread until confirmed. `direct`: no broadcasts.

        None that stands behind one on the disk (see `missing`).
        """
        taken = within(self._free(direct=direct), limit, max_bytes)
        self._handed.update(message.id for message in taken)
        return taken

    def _free(self, *, direct: bool) -> Iterator[Message]:
        for item in self.unread.walk(direct=direct):
            if isinstance(item, Segment):
                return
            if item.id not in self._handed:
                yield item

    def missing(
        self,
        limit: int,
        max_bytes: int,
        *,
        direct: bool = False,
        looked: Mapping[int, Collection[Message]] | None = None,
    ) -> Segment | None:
        """What must be read from the disk first, that so much can be taken; or with `looked` be shown by `peek`."""
        count = size = 0
        for item in self.unread.walk(looked, direct=direct):
            if count >= limit or size >= max_bytes:
                return None
            if isinstance(item, Segment):
                return item
            if looked is not None or item.id not in self._handed:
                count += 1
                size += len(item.text)
        return None

    def has_free(self, *, direct: bool = False) -> bool:
        """Whether `take` would find something, once nothing is `missing`."""
        return any(isinstance(item, Segment) or item.id not in self._handed for item in self.unread.walk(direct=direct))

    @property
    def free(self) -> int:
        """How many unread messages nobody holds."""
        return len(self.unread) - sum(held in self.unread for held in self._handed)

    def peek(
        self, limit: int, max_bytes: int, looked: Mapping[int, Collection[Message]] | None = None
    ) -> list[Message]:
        """The oldest unread messages, without taking them; `looked`: what segments have, by their numbers."""
        items = self.unread.walk(looked)
        return within((item for item in items if not isinstance(item, Segment)), limit, max_bytes)

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
        self.losses.apply_batch(batch)
        self.damage.apply(batch, self.losses, self.between)
        for message in batch.messages:
            self.unread.add(message)
        for message_id in batch.seen:
            self.seen.add(message_id, batch.origins.get(message_id, ""), broadcast=batch.group is not None)
        if self.damage.was_mended and batch.messages:
            self.unread.sort()

    def apply_read(self, read: Read) -> None:
        for message_id in read.ids:
            message = self.unread.drop(message_id)
            if message is not None:
                self.seen.had(message)
                above = self.group_above if message.kind == "broadcast" else self.read_above
                above.append((message.at, message_id))
            elif self.damage.was_read(message_id, self.seen):
                self.seen.add(message_id, "", broadcast=False)
        self._handed.difference_update(read.ids)
        self.losses.told(read.lost)
        self._settle()

    def _settle(self) -> None:
        """There is less unread: what was read above the oldest of it may be below it now."""
        self.read_above = above(self.read_above, self.unread.private.oldest())
        self.group_above = above(self.group_above, self.unread.broadcasts.oldest())
        if not self.unread:
            self.read_elsewhere = []

    def apply_moved(self, moved: Moved) -> None:
        group_to = moved.broadcasts_to or "0-0"
        if not all(map(is_entry_id, (moved.position.at, moved.read_to, moved.group or "0-0", group_to, moved.gone_to))):
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
        read_to, broadcasts_to, gone_to = map(entry_key, (moved.read_to, group_to, moved.gone_to))
        read_ids = set(moved.read_ids)
        for segment in self.unread.reached(read_to, broadcasts_to).whole:
            if segment.broadcasts or entry_key(segment.low) >= gone_to:
                for message_id, origin in segment.ids.items():
                    self.seen.add(message_id, origin, broadcast=segment.broadcasts)
            self.unread.forget(segment)
        for message in list(self.unread.in_memory()):
            at, is_private = entry_key(message.at), message.kind != "broadcast"
            if message.id in read_ids or at <= (read_to if is_private else broadcasts_to):
                self.unread.drop(message.id)
                if message.id in read_ids or not is_private or at >= gone_to:
                    self.seen.had(message)
        for message_id in moved.read_ids:
            if message_id not in self.seen:
                self.seen.add(message_id, "", broadcast=False)
        self.read_elsewhere = moved.read_ids[-READ_ABOVE:]

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        # From an earlier place that cannot be one (see `apply_moved`) all that the store has is read again.
        self.position = snapshot.position if is_entry_id(snapshot.position.at) else Position("0-0", UNKNOWN)
        self.group = snapshot.group if snapshot.group is None or is_entry_id(snapshot.group) else "0-0"
        self.seen = Seen(snapshot.seen, snapshot.seen_broadcasts)
        self.read_above = list(snapshot.read_above)
        self.group_above = list(snapshot.group_above)
        self.read_elsewhere = list(snapshot.read_elsewhere)
        self.losses.apply_snapshot(snapshot)
        self.damage.hole = snapshot.hole or self.damage.hole
        self.unread.clear(snapshot.segment)

    def apply_mail(self, record: Unread | Spilled | Loaded | Damaged) -> None:
        """Unread mail of a compacted journal, or that was put on the disk, has come back from there, or is damaged."""
        match record:
            case Unread():
                for message in record.messages:
                    self.unread.add(message)
            case Spilled():
                self.unread.spill(record.segment)
            case Damaged():
                self.damage.found(self.position, self.group, self.losses, new=record.new)
            case Loaded():
                self.unread.load(record.number, record.messages)
                self.losses.total += record.lost
                self.losses.untold += record.lost
                self._settle()

    # --- telling ---

    def read_position(self) -> Position:
        """Up to where the private stream was read without a hole."""
        oldest = self.unread.private.oldest()
        if oldest is None or entry_key(oldest.at) > entry_key(self.position.at):
            return self.position
        return Position(entry_before(oldest.at), max(0, oldest.index - 1))

    def read_group(self) -> str | None:
        """Up to where the broadcasts were read without a hole."""
        oldest = self.unread.broadcasts.oldest()
        return entry_before(oldest.at) if oldest else self.group

    def left_behind(self, private: str, group: str) -> Iterator[Message | Segment]:
        """Unread messages that the store has no more: from before the first entry that each of the streams has.

        And segments that have such messages; of them all that `is_left` says.
        """
        for item in self.unread.walk():
            if self.is_left(item, private, group):
                yield item

    @staticmethod
    def is_left(item: Message | Segment, private: str, group: str) -> bool:
        if isinstance(item, Segment):
            return entry_key(item.low) < entry_key(group if item.broadcasts else private)
        return entry_key(item.at) < entry_key(group if item.kind == "broadcast" else private)

    def read_beyond(self) -> list[str]:
        """Ids that were read above `read_position`: another daemon must not hand them over again."""
        return [*self.read_elsewhere, *(message_id for _, message_id in (*self.read_above, *self.group_above))]
