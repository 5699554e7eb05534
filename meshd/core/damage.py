"""What a damaged journal may have lost: from where it is read again, and how many messages of it were not found there.

Beside a record that is damaged those before and behind it tell how many entries it had. What of them the store still
has comes again; what was read of them the records of reading tell; the rest is lost.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshd.core.losses import Losses
from meshd.core.message import entry_before, entry_key
from meshd.core.records import UNKNOWN, Batch, Hole, Position


class Damage:
    """State of one agent's damage. Methods change it as the journal is folded, and as mail is read again."""

    def __init__(self) -> None:
        self.hole = Hole()  # of what is being read again
        self._at: tuple[Position, str | None] | None = None  # where the inbox stood before the first damage
        self._new = False  # among what is damaged, something was found just now
        self.was_mended = False
        self._index: int | None = None  # of the private stream, before damage behind which no mail was seen yet

    @property
    def is_fresh(self) -> bool:
        """Whether it was just found, and nothing is read again yet."""
        return self._at is not None

    def found(self, position: Position, group: str | None, losses: Losses, *, new: bool) -> None:
        """Records behind this place are damaged. What they told of senders' counts is not known: none goes on."""
        for broadcasts in (False, True):
            losses.forget_counts(broadcasts=broadcasts)
        self._at = self._at or (position, group)
        self._new = self._new or new
        self._index = position.index if position.index != UNKNOWN else None

    def sees(self, batch: Batch) -> None:
        """The next batch that is whole."""
        first = next((message for message in batch.messages if message.index), None)
        if self._index is not None and batch.position is not None and first is not None:
            self.hole.missing += max(0, first.index - 1 - self._index)
            self.hole.to = entry_before(first.at)
            self._index = None

    def was_read(self, message_id: str, seen: Mapping[str, str]) -> bool:
        """A message was read. Whether it is one that the damaged records told of: it is not lost."""
        is_one = self.is_fresh and message_id not in seen
        self.hole.missing -= is_one
        return is_one

    def mend(self, now: float, group_now: str | None) -> Batch:
        """From there it is read again. `group_now`: where the inbox stands in the group."""
        assert self._at is not None
        self._new = False
        position, group = self._at
        if group is None and group_now is not None:
            group = "0-0"  # where it stood is not known
        hole = Hole(to=self.hole.to, missing=max(0, self.hole.missing))
        line = "⚠ the journal was damaged; reading again what the store still has"
        return Batch(now=now, position=Position(position.at, UNKNOWN), group=group, hole=hole, lines=[line])

    def read_again(self, batch: Batch, cursor: str, *, all_there_is: bool) -> None:
        """Notes in the batch what is lost, once all that the store still has was read."""
        hole = self.hole
        if not hole.missing:
            return
        left = hole.missing - sum(entry_key(message.at) <= entry_key(hole.to) for message in batch.messages)
        over = all_there_is or entry_key(cursor) >= entry_key(hole.to)
        batch.lost += max(0, left) if over else 0
        batch.hole = Hole() if over else Hole(to=hole.to, missing=max(0, left))

    def apply(self, batch: Batch, losses: Losses) -> None:
        if batch.hole is not None:
            if batch.hole.missing:
                losses.counted_to = batch.hole.to  # what is missing up to there is counted here
            self.was_mended = True
            if not self._new:  # else that is told of by a later one
                self.hole, self._at, self._index = batch.hole, None, None
        elif self._at is not None:
            self.sees(batch)
