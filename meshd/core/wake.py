"""The wake ladder of one agent: when to tell a session of unread mail, by which rung, and when to be quiet.

The rungs, surest first: `socket`, the session's own inbox socket; `channel`, a notification to a client that
registered one; `hook`, a hook of the client that waits and ends. The notify log is always written and needs no
decision. A wake is proven by a read and by nothing else: a rung that brought none within its time is followed by
the next; after the last comes a pause that grows. A session at work is never rung: its hooks tell it.

The first mail after a silence is rung for in the instant in which it comes. What comes behind it is gathered while
that ring may still bring a read; when it has, the next mail is the first again.

Times are monotonic: a clock that is set must not hold a wake back. Nothing here is written down: after a restart
unread mail may be told once more.
"""

from __future__ import annotations

from typing import NamedTuple

from meshd.core.clock import Mono, Wall

RUNGS = ("socket", "channel", "hook")
STEP = "step"  # not a rung: a busy session was told between its steps

# Before a ring: for somebody who waits for the mail, to read it first; for a hook that says that its session is idle,
# to end, because before that it is not.
MOMENT = 0.03
RUNG_TIME = 30.0  # a model may think for long before its first call
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0
NEWS_PAUSE = 30.0  # between rings for new mail to somebody who has not read since the last: a burst is one wake
BUSY_TIME = 180.0  # without a sign of work, a session that was busy counts as idle again
SETTLE = 3.0  # a session that has just come, or has just read, may be about to read by itself

_EVER = Mono(float("-inf"))


class Worked(NamedTuple):
    """The last read that followed a wake: which rung, when, and how many seconds the oldest mail had waited."""

    rung: str
    at: Wall
    waited: float


class Ladder:
    """State of one agent's wakes. Each method takes `now`; `tick` gives the rung to ring, if it is time.

    A round is each armed rung once. While mail waits and a rung is armed there is always a next step, at `_due`.
    """

    def __init__(self) -> None:
        self.armed: set[str] = set()
        self.rung: str | None = None  # rung, not yet answered by a read, and its time is not over
        self.worked: Worked | None = None
        self.failed: dict[str, str] = {}
        self._since: Mono | None = None  # since when mail waits; None: nothing is unread
        self._news = False  # mail has come since the last ring, and since the session was told
        self._untold = False  # mail has come that the session is not known to have heard of
        self._told_by: list[str] = []  # since the last read; the last one last
        self._tried: set[str] = set()  # in this round
        self._rounds = 0  # since the last read
        self._last_ring = _EVER  # since the last read
        self._settled = _EVER  # until then the session may still do something by itself, and is not rung for news
        self._due = _EVER
        self._busy_until = _EVER

    # --- mail ---

    def mail(self, now: Mono, *, awaited: bool = False) -> None:
        """New unread mail, or a reminder of some. `awaited`: somebody waits for it, and may read it by himself."""
        soon = self._soon(_later(now, MOMENT) if awaited else now)
        if self._since is None:
            self._since, self._due = now, soon
        elif self.rung is None:
            self._due = min(self._due, soon)
        self._news = self._untold = True

    def found(self, now: Mono) -> None:
        """Unread mail of an earlier run: the first rung that is armed rings for it."""
        self._since = self._due = now
        self._news = self._untold = True

    def read(self, left: int, now: Mono, wall: Wall) -> None:
        """Mail was read, and so much is left; that counts as waiting from now on. `wall`: now, for `worked`."""
        if self._since is not None and self._told_by:
            self.worked = Worked(self._told_by[-1], wall, now - self._since)
        self._start_over()
        if left:
            self._since, self._due = now, _later(now, FIRST_PAUSE)
            if self._news:
                self._due = self._settled = _later(now, SETTLE)
        else:
            self._since = None
            self._news = self._untold = False

    # --- rungs ---

    def arm(self, rung: str, now: Mono, wait: float) -> None:
        """This rung can be rung from now on. Mail that waits for one rings it after `wait` seconds at the earliest."""
        if not self.armed:
            self._due = max(self._due, _later(now, wait))
        self.armed.add(rung)
        self.failed.pop(rung, None)

    def disarm(self, rung: str, now: Mono, why: str | None = None) -> None:
        """It cannot be rung any more. `why`: it failed, nobody was told by it, and the next one is due."""
        self.armed.discard(rung)
        if why is None:
            return
        self.failed[rung] = why
        if rung in self._told_by:
            self._told_by.remove(rung)
        if self.rung == rung:
            self._news = self._news or not self._told_by
            self._due = now

    # --- the session's own steps ---

    def stepped(self, now: Mono) -> None:
        """The session is at work: it is told between its steps, and not rung."""
        self._busy_until = _later(now, BUSY_TIME)

    def rested(self, now: Mono) -> None:
        """The session is idle, in a moment. What it was told of and did not read is rung for after a pause."""
        if not self.busy(now):
            return
        self._busy_until, self._settled = _EVER, _later(now, MOMENT)
        if self._since is not None:
            self._end_round(now)

    def tell(self) -> bool:
        """Whether there is mail that the session has not heard of; it counts as told from now on."""
        told = self._untold
        self._news = self._untold = False
        if told:
            self._add_teller(STEP)
        return told

    def heard(self) -> None:
        """The last ring has reached the session: it knows of what had come by then."""
        self._untold = self._untold and self._news

    def anew(self, now: Mono) -> None:
        """Another reader from now on, idle, whom nobody has told anything."""
        self._start_over()
        self._busy_until = _EVER
        self._news = self._untold = self._since is not None
        if self._since is not None:
            self._due = self._settled = _later(now, SETTLE)

    def busy(self, now: Mono) -> bool:
        return now < self._busy_until

    # --- time ---

    def next_due(self) -> Mono | None:
        """When `tick` has something to do. A busy session's end of work is waited for, not its next second."""
        if self._since is None or not self.armed:
            return None
        return max(self._due, self._busy_until)

    def tick(self, now: Mono) -> str | None:
        """The rung to ring now, if any."""
        due = self.next_due()
        if due is None or now < due:
            return None
        if self.armed <= self._tried:
            self._end_round(now)
            if now < self._due:
                return None
        rung = next(rung for rung in self.ladder() if rung not in self._tried)
        self._tried.add(rung)
        self._add_teller(rung)
        self.rung = rung
        self._news = False
        self._last_ring = now
        self._due = _later(now, RUNG_TIME)
        return rung

    def _soon(self, now: Mono) -> Mono:
        """When new mail is rung for: after a silence at once, and otherwise with what else has come by then."""
        return max(now, self._settled, _later(self._last_ring, NEWS_PAUSE))

    def _end_round(self, now: Mono) -> None:
        """What was rung in it, if anything, brought no read. The next begins after a pause, or soon if mail came."""
        self._rounds += bool(self._tried)
        self.rung = None
        self._tried.clear()
        pause = FIRST_PAUSE * 2 ** min(max(0, self._rounds - 1), 30)
        self._due = self._soon(now) if self._news else _later(now, min(LONGEST_PAUSE, pause))

    def _start_over(self) -> None:
        """As if nothing had been rung yet."""
        self.rung = None
        self._tried.clear()
        self._told_by.clear()
        self._rounds = 0
        self._last_ring = self._settled = _EVER

    def _add_teller(self, teller: str) -> None:
        if teller in self._told_by:
            self._told_by.remove(teller)
        self._told_by.append(teller)

    # --- telling ---

    @property
    def waiting_since(self) -> Mono | None:
        """Since when unread mail waits."""
        return self._since

    def ladder(self) -> list[str]:
        """The armed rungs, in the order in which they are rung."""
        return [rung for rung in RUNGS if rung in self.armed] if self.armed else []


def _later(moment: Mono, seconds: float) -> Mono:
    return Mono(moment + seconds)
