"""What of one agent's mail is missing, and who was told.

Loss is counted from two sources that never count one message twice. The store's own arithmetic: entries ever
added less entries still there, less what was read, is what trimming took. And the senders' counters (`sid`,
`n`): a gap that trimming does not explain is what a failover or a rolled-back store took. Trimming explains only
the first gap of each sender that was met before it: what comes later was sent later.
"""

from __future__ import annotations

from meshd.core.message import Malformed, Message, entry_key
from meshd.core.names import EVERYONE
from meshd.core.records import Batch, Moved, Snapshot

COUNTERS = 1024
# Missing messages of one sender in a row that are believed, whatever the store says that it ever had: it may have gone
# back to its beginning, and what was sent before that is missing all the same.
BELIEVED = 10_000


class Losses:
    """State of one agent's losses. Methods named `apply_*` change it, as do those that hand losses over."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        # By the counters of `counts`: how many trimmed entries may have been this sender's, who has not written since.
        self.unsure: dict[str, int] = {}
        # Up to this entry of the private stream another daemon has had it all, and has told what it was missing.
        self.counted_to = "0-0"
        self.total = 0
        self.untold = 0
        self._handed = 0

    # --- deciding ---

    def unsure_after(self, trimmed: int) -> dict[str, int]:
        """`unsure`, once so many more entries of the private stream were trimmed."""
        if not trimmed:
            return dict(self.unsure)
        return {key: self.unsure.get(key, 0) + trimmed for key in self.counts if not key.endswith(EVERYONE)}

    def gap(
        self,
        entry: Message | Malformed,
        counts: dict[str, int],
        unsure: dict[str, int],
        *,
        broadcast: bool,
        added: int = 0,
    ) -> int:
        """How many messages of this sender are missing before this one, beyond what trimming explains.

        Notes its count in `counts`, and in `unsure` whose the trimmed entries were. `added`: how many entries the
        stream ever had up to this one; of more than that none can be missing, and a count that says so is another's.
        """
        if entry.sid is None:
            return 0
        key = f"{entry.sid} {entry.sender} {EVERYONE * broadcast}"
        last = counts.get(key, self.counts.get(key, 0))
        if entry.n <= last:
            return 0
        # A sender that is met for the first time has no known beginning, and so no gap.
        missing = entry.n - last - 1 if last else 0
        if missing > max(added, BELIEVED):
            return 0
        counts[key] = entry.n
        may = unsure.pop(key, 0)
        known = min(missing, may)
        if known:
            # An entry was one sender's only. Those trimmed first are used first: fewer senders can use them.
            for other, theirs in list(unsure.items()):
                unsure[other] = min(theirs, max(theirs, may) - known)
                if not unsure[other]:
                    del unsure[other]
        if not broadcast and entry_key(entry.at) <= entry_key(self.counted_to):
            return 0
        return missing - known

    # --- handing over ---

    def take(self) -> int:
        """How many losses nobody was told of, or is being told of; they are told once the hand-over is confirmed."""
        taken = self.untold - self._handed
        self._handed = self.untold
        return taken

    def release(self, lost: int) -> None:
        """The hand-over failed: of so many losses somebody is still to be told."""
        self._handed -= lost

    def told(self, lost: int) -> None:
        """Somebody was told of so many."""
        self.untold = max(0, self.untold - lost)
        self._handed = max(0, self._handed - lost)

    # --- applying ---

    def apply_moved(self, moved: Moved) -> None:
        self.counted_to = moved.counted_to
        self.total += moved.lost
        self.untold += moved.lost

    def apply_batch(self, batch: Batch) -> None:
        if batch.went_back is not None:
            self.counted_to = "0-0"
        if batch.explained is not None:
            self._share(batch.explained)
        if batch.unsure is not None:
            self.unsure = dict(batch.unsure)
        for key, n in batch.counts.items():
            self._forget(key)
            self.counts[key] = n
        while len(self.counts) > COUNTERS:
            self._forget(next(iter(self.counts)))
        self.total += batch.lost
        self.untold += batch.lost

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        self.counts = dict(snapshot.counts)
        self._share(snapshot.explained)
        self.unsure.update(snapshot.unsure)
        self.counted_to = snapshot.counted_to
        self.total = snapshot.lost_total
        self.untold = snapshot.lost_untold

    def _share(self, explained: int) -> None:
        """An older version's credit for trimming: of all who were met, it does not say who has written since."""
        self.unsure = {}
        self.unsure = self.unsure_after(explained)

    def _forget(self, key: str) -> None:
        self.counts.pop(key, None)
        self.unsure.pop(key, None)

    def forget_counts(self, *, broadcasts: bool) -> None:
        for key in [key for key in self.counts if key.endswith(EVERYONE) == broadcasts]:
            self._forget(key)
