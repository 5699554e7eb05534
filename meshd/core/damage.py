"""What a damaged journal may have lost: from where it is read again, and how many messages of it were not found there.

Beside a record that is damaged those before and behind it tell how many entries it had. What of them the store still
has comes again; what was read of them the records of reading tell; the rest is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshd.core.losses import Losses
from meshd.core.message import entry_before, entry_key
from meshd.core.records import UNKNOWN, Batch, Hole, Position

Known = Callable[[str, str], int]


class _Found:
    """Damage that nothing is read again for yet: where the inbox stood before it, and what is missing so far."""

    def __init__(self, position: Position, group: str | None) -> None:
        self.position, self.group = position, group
        self.hole = Hole()
        self._index: int | None = None  # of the private stream, as long as no mail was seen behind the damage
        self._place = position.at
        self._gaps: list[tuple[tuple[int, int], tuple[int, int]]] = []  # between which entries it was

    def more(self, position: Position) -> None:
        self._index = position.index if position.index != UNKNOWN else None
        self._place = position.at

    def sees(self, batch: Batch, known: Known) -> None:
        """The next batch that is whole. What was read again after an earlier damage is told before it, or behind it."""
        for low, high in self._gaps:
            self.hole.missing -= sum(low < entry_key(m.at) < high for m in batch.messages if m.kind != "broadcast")
        first = next((message for message in batch.messages if message.index), None)
        if self._index is not None and batch.position is not None and first is not None:
            self.hole.missing += max(0, first.index - 1 - self._index - known(self._place, first.at))
            self._gaps.append((entry_key(self._place), entry_key(first.at)))
            self.hole.to = entry_before(first.at)
            self._index = None


class Damage:
    """State of one agent's damage. Methods change it as the journal is folded, and as mail is read again."""

    def __init__(self) -> None:
        self.hole = Hole()  # of what is being read again
        self.awaits_snapshot = False  # what the journal begins with has not come: if it is damaged, no place is known
        self.was_mended = False
        # By whether it was found just now: what was found before is mended by a record that follows it, if any does.
        self._found: dict[bool, _Found] = {}

    @property
    def is_fresh(self) -> bool:
        """Whether there is some for which nothing is read again yet."""
        return bool(self._found)

    def found(self, position: Position, group: str | None, losses: Losses, *, new: bool) -> None:
        """Records behind this place are damaged. What they told of senders' counts is not known: none goes on."""
        for broadcasts in (False, True):
            losses.forget_counts(broadcasts=broadcasts)
        if self.awaits_snapshot:
            position = Position(position.at, UNKNOWN)
        self._found.setdefault(new, _Found(position, group)).more(position)

    def was_read(self, message_id: str, seen: Mapping[str, str]) -> bool:
        """A message was read. Whether it is one that the damaged records told of: it is not lost."""
        is_one = self.is_fresh and message_id not in seen
        for found in self._found.values():
            found.hole.missing -= is_one
        return is_one

    def mend(self, now: float, group_now: str | None) -> Batch:
        """From there it is read again. `group_now`: where the inbox stands in the group."""
        all_found = list(self._found.values())
        first = min(all_found, key=lambda found: entry_key(found.position.at))
        each = [self.hole.missing, *(found.hole.missing for found in all_found)]
        # One that has more that was read than is missing explains nothing of another; alone it is kept (see `Hole`).
        missing = sum(max(0, number) for number in each) or sum(each)
        hole = Hole(to=max([self.hole.to, *(found.hole.to for found in all_found)], key=entry_key), missing=missing)
        groups = [found.group for found in all_found]
        # Where it stood may not be known.
        group = min((group or "0-0" for group in groups), key=entry_key) if any(groups) or group_now else None
        self._found = {}
        line = "⚠ the journal was damaged; reading again what the store still has"
        position = Position(first.position.at, UNKNOWN)
        return Batch(now=now, position=position, group=group, hole=hole, lines=[line])

    def read_again(self, batch: Batch, cursor: str, *, all_there_is: bool) -> None:
        """Notes in the batch what is lost, once all that the store still has was read."""
        hole = self.hole
        if not hole.missing:
            return
        if hole.missing < 0:
            known = min(batch.lost, -hole.missing)
            batch.lost -= known
            batch.hole = Hole() if all_there_is else Hole(to=hole.to, missing=hole.missing + known)
            return
        left = hole.missing - sum(entry_key(message.at) <= entry_key(hole.to) for message in batch.messages)
        over = all_there_is or entry_key(cursor) >= entry_key(hole.to)
        batch.lost += max(0, left) if over else 0
        batch.hole = Hole() if over else Hole(to=hole.to, missing=max(0, left))

    def apply(self, batch: Batch, losses: Losses, known: Known) -> None:
        """`known(after, before)`: of how many private messages between these entries the journal has told."""
        # What was counted when an earlier damage was read again is not counted another time.
        counted = min(batch.lost, max(0, self.hole.missing)) if batch.hole is not None else 0
        for found in self._found.values():
            found.sees(batch, known)
            found.hole.missing -= counted
        if batch.hole is not None:
            if batch.hole.missing > 0:
                losses.counted_to = batch.hole.to  # what is missing up to there is counted here
            self.hole, self.was_mended = batch.hole, True
            self._found.pop(False, None)
