"""The wake ladder of one agent: when to tell a session of unread mail, by which rung, and when to be quiet.

The rungs, surest first: `socket`, the session's own inbox socket; `channel`, a notification to a client that
registered one; `hook`, a hook of the client that waits and ends. The notify log is always written and needs no
decision. A wake is proven by a read and by nothing else: a rung that brought none within its time is followed by
the next; after the last comes a pause that grows. A session at work is never rung: its hooks tell it.

Times are wall seconds. Nothing here is written down: after a restart unread mail may be told once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

RUNGS = ("socket", "channel", "hook")
STEP = "step"  # not a rung: a busy session was told between its steps

GATHER = 0.03  # a burst is one wake
RUNG_TIME = 30.0  # a model may think for long before its first call
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
NEWS_PAUSE = 30.0  # between rings for new mail to somebody who has ignored the last
BUSY_TIME = 180.0  # without a sign of work, a session that was busy counts as idle again
SETTLE = 3.0  # a session that has just come may be about to read by itself


class Worked(NamedTuple):
    """The last read that followed a wake: which rung, when, and how long the oldest mail had waited."""

    rung: str
    at: float
    waited: float


class Ladder:
    """State of one agent's wakes. Each method takes `now`; `tick` gives the rung to ring, if it is time."""

    def __init__(self) -> None:
        self.armed: set[str] = set()
        self.rung: str | None = None  # rung, and not yet answered by a read
        self.worked: Worked | None = None
        self.failed: dict[str, str] = {}
        self._since: float | None = None  # since when mail waits; None: nothing is unread
        self._untold = False
        self._told_by: str | None = None
        self._tried: set[str] = set()
        self._rounds = 0
        self._last_ring = float("-inf")
        self._due: float | None = None
        self._busy_until = float("-inf")

    # --- mail ---

    def mail(self, now: float) -> None:
        """New unread mail, or a reminder of some."""
        if self._since is None:
            self._since = now
        self._untold = True
        if self.rung is None:
            soon = max(now + GATHER, self._last_ring + NEWS_PAUSE if self._rounds else now)
            self._due = soon if self._due is None else min(self._due, soon)

    def found(self, now: float) -> None:
        """Unread mail of an earlier run: the first rung that is armed rings for it."""
        self._since, self._untold = now, True

    def read(self, left: int, now: float) -> None:
        """Mail was read, and so much is left."""
        if self._since is not None and self._told_by is not None:
            self.worked = Worked(self._told_by, now, max(0.0, now - self._since))
            self.failed.pop(self._told_by, None)
        self._end_round()
        self._rounds = 0
        self._told_by = None
        if left:
            self._since, self._due = now, now + FIRST_PAUSE
        else:
            self._since = self._due = None
            self._untold = False

    # --- rungs ---

    def arm(self, rung: str, now: float, wait: float = GATHER) -> None:
        """This rung can be rung from now on. Mail that waits for one rings it after `wait` seconds."""
        self.armed.add(rung)
        self.failed.pop(rung, None)
        if self._since is not None and self._due is None:
            # What it was told of before is not told again the moment a used-up rung is armed anew.
            self._due = max(now + wait, float("-inf") if self._untold else self._last_ring + self._pause())

    def disarm(self, rung: str, now: float, why: str | None = None) -> None:
        """It cannot be rung any more. `why`: it failed, and the next one is due."""
        self.armed.discard(rung)
        if why is not None:
            self.failed[rung] = why
            if self.rung == rung:
                self._due = now
        if not self.armed:
            self._rounds += self.rung is not None
            self._end_round()
            self._due = None

    # --- the session's own steps ---

    def stepped(self, now: float) -> None:
        """The session is at work: it is told between its steps, and not rung."""
        self._busy_until = now + BUSY_TIME

    def rested(self, now: float) -> None:
        """The session is idle. What it was told of and did not read is rung for after a pause."""
        if not self.busy(now):
            return
        self._busy_until = float("-inf")
        if self._since is not None and self.armed:
            self._end_round()
            self._due = now + (GATHER if self._untold else self._pause())

    def tell(self) -> bool:
        """Whether there is mail that the session was not told of; it counts as told from now on."""
        told, self._untold = self._untold, False
        if told:
            self._told_by = STEP
        return told

    def busy(self, now: float) -> bool:
        return now < self._busy_until

    # --- time ---

    def next_due(self) -> float | None:
        """When `tick` has something to do. A busy session's end of work is waited for, not its next second."""
        return None if self._due is None else max(self._due, self._busy_until)

    def tick(self, now: float) -> str | None:
        """The rung to ring now, if any."""
        due = self.next_due()
        if due is None or now < due:
            return None
        for rung in _in_order(self.armed):
            if rung not in self._tried:
                self._tried.add(rung)
                self.rung = self._told_by = rung
                self._untold = False
                self._last_ring = now
                self._due = now + RUNG_TIME
                return rung
        # With nothing armed the next rung that is begins a round.
        self._due = now + self._pause() if self.armed else None
        self._rounds += self.rung is not None
        self._end_round()
        return None

    def _pause(self) -> float:
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._rounds, 30)))

    def _end_round(self) -> None:
        self.rung = None
        self._tried.clear()

    # --- telling ---

    @property
    def waiting_since(self) -> float | None:
        """Since when unread mail waits."""
        return self._since

    def ladder(self) -> list[str]:
        """The armed rungs, in the order in which they are rung."""
        return list(_in_order(self.armed))


def _in_order(rungs: Iterable[str]) -> Iterable[str]:
    known = set(rungs)
    return (rung for rung in RUNGS if rung in known)
