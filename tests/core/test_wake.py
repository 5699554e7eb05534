"""The wake ladder, through any history: woken until it reads, by one rung at a time, and never for nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshd.core.clock import Mono, Wall
from meshd.core.wake import (
    BUSY_TIME,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MOMENT,
    NEWS_PAUSE,
    RUNG_TIME,
    RUNGS,
    SETTLE,
    STEP,
    Ladder,
    Worked,
)

EVER, NEVER = -math.inf, math.inf
DAY = 86_400.0
EPOCH = 1_700_000_000.0  # what the wall clock shows when the monotonic one shows 0
rungs = st.sampled_from(RUNGS)
pauses = st.sampled_from([0.0, 0.001, MOMENT, 1.0, SETTLE, 29.9, 30.0, 60.0, BUSY_TIME, 1000.0, 4000.0])


class PlainLadder(Ladder):
    """A ladder that is told the time as a plain number."""

    def mail(self, now: float, *, awaited: bool = False) -> None:
        super().mail(Mono(now), awaited=awaited)

    def found(self, now: float) -> None:
        super().found(Mono(now))

    def read(self, left: int, now: float, wall: float | None = None) -> None:
        super().read(left, Mono(now), Wall(EPOCH + now if wall is None else wall))

    def arm(self, rung: str, now: float, wait: float = 0.0) -> None:
        super().arm(rung, Mono(now), wait)

    def disarm(self, rung: str, now: float, why: str | None = None) -> None:
        super().disarm(rung, Mono(now), why)

    def stepped(self, now: float) -> None:
        super().stepped(Mono(now))

    def rested(self, now: float) -> None:
        super().rested(Mono(now))

    def anew(self, now: float) -> None:
        super().anew(Mono(now))

    def busy(self, now: float) -> bool:
        return super().busy(Mono(now))

    def tick(self, now: float) -> str | None:
        return super().tick(Mono(now))


def worked(rung: str, at: float, waited: float) -> Worked:
    """`at` by the monotonic clock."""
    return Worked(rung, Wall(EPOCH + at), waited)


class LadderMachine(RuleBasedStateMachine):
    """A ladder, the session that it wakes, and what the contract says of both, told only by what was done."""

    def __init__(self) -> None:
        super().__init__()
        self.ladder = PlainLadder()
        self.now = 1000.0
        self.armed: set[str] = set()
        self.unread = 0
        self.since = EVER  # the oldest unread mail
        self.busy_until = EVER
        self.untold = False  # mail came that no step was told of
        self.news = False  # mail came that neither a ring nor a step has told of
        self.tellers: list[str] = []  # since the last read
        self.round: list[str] = []  # what was rung in it, if one is going on
        self.last_ring = EVER  # since the last read
        self.settled = EVER  # until then the session may still do something by itself
        self.broken = False  # the rung that rang last has failed
        self.over = NEVER  # when the time of the rung that rang last is over
        self.unanswered = 0  # rounds since the last read
        # Between rounds: when to ring for what was told of before, and when for news.
        self.quiet_until = NEVER
        self.news_from = NEVER

    # --- mail and reads ---

    @rule(awaited=st.booleans())
    def mail(self, awaited: bool = False) -> None:
        self.ladder.mail(self.now, awaited=awaited)
        if not self.unread:
            self.since = self.now
            self.quiet_until = NEVER
        self.unread += 1
        self.untold = self.news = True
        if not self.round:
            self.news_from = min(self.news_from, self.soon(self.now + MOMENT if awaited else self.now))

    @precondition(lambda self: not self.unread and self.armed and self.now >= max(self.busy_until, self.settled))
    @rule()
    def first_mail_after_a_silence(self) -> None:
        """It is rung for in the same instant, by the surest rung, and what comes right behind it is not."""
        self.mail()
        assert self.ladder.next_due() == self.now
        assert self.tick() == next(rung for rung in RUNGS if rung in self.armed)
        self.mail()
        assert self.ladder.next_due() == self.now + NEWS_PAUSE

    @precondition(lambda self: self.unread)
    @rule()
    def reminder(self) -> None:
        """A re-ping of mail that is still unread."""
        self.mail()
        self.unread -= 1

    @precondition(lambda self: self.unread)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """All of it, or some. The last who told of it has the credit."""
        self.read_until(data.draw(st.sampled_from(sorted({0, self.unread // 2, self.unread - 1}))))

    def read_until(self, left: int) -> None:
        before = self.ladder.worked
        self.unread = left
        self.ladder.read(left, self.now)
        if self.tellers:
            assert self.ladder.worked == worked(self.tellers[-1], self.now, self.now - self.since)
        else:
            assert self.ladder.worked == before
        self.start_over()
        self.since = self.now
        self.quiet_until, self.news_from = self.now + FIRST_PAUSE, NEVER
        if not left:
            self.untold = self.news = False
        self.settle()

    def start_over(self) -> None:
        self.tellers, self.round, self.unanswered = [], [], 0
        self.last_ring, self.settled, self.broken = EVER, EVER, False

    def settle(self) -> None:
        """What the session was not told of it may be about to read by itself."""
        if self.news:
            self.settled = self.quiet_until = self.now + SETTLE

    # --- rungs ---

    @initialize(armed=st.lists(rungs, unique=True))
    def begin(self, armed: list[str]) -> None:
        for rung in armed:
            self.arm(rung, 0.0)

    @rule(rung=rungs, wait=st.sampled_from([0.0, SETTLE]))
    def arm(self, rung: str, wait: float) -> None:
        self.ladder.arm(rung, self.now, wait)
        if not self.armed and self.unread:
            self.over = max(self.over, self.now + wait)
            self.quiet_until = max(self.quiet_until, self.now + wait)
            self.news_from = max(self.news_from, self.now + wait)
        self.armed.add(rung)
        assert rung not in self.ladder.failed

    @precondition(lambda self: self.armed)
    @rule(data=st.data())
    def disarm(self, data: st.DataObject) -> None:
        rung = data.draw(st.sampled_from(sorted(self.armed)))
        self.ladder.disarm(rung, self.now)
        self.armed.discard(rung)

    @precondition(lambda self: self.armed)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        self.break_rung(data.draw(st.sampled_from(sorted(self.armed))))

    def break_rung(self, rung: str) -> None:
        """Nobody was told by a rung that failed, at whatever time that becomes known."""
        self.ladder.disarm(rung, self.now, "broken")
        self.armed.discard(rung)
        self.tellers = [told for told in self.tellers if told != rung]
        assert self.ladder.failed[rung] == "broken"
        if self.round[-1:] == [rung]:
            self.broken, self.over = True, self.now
            self.news = self.news or not self.tellers

    # --- the session ---

    @rule()
    def step(self) -> None:
        self.ladder.stepped(self.now)
        self.busy_until = self.now + BUSY_TIME

    @rule()
    def rest(self) -> None:
        self.ladder.rested(self.now)
        if self.now >= self.busy_until:
            return
        self.busy_until, self.settled = EVER, self.now + MOMENT
        if self.unread:
            self.end_round()

    @rule()
    def tell(self) -> None:
        """At most once for each mail."""
        assert self.ladder.tell() == self.untold
        if self.untold:
            self.told_by(STEP)
        self.untold = self.news = False

    @rule()
    def hear(self) -> None:
        """A ring became the session's prompt: it needs no telling of what it was rung for."""
        self.ladder.heard()
        self.untold = self.untold and self.news

    @rule()
    def anew(self) -> None:
        """Another reader, who was told of nothing."""
        self.ladder.anew(self.now)
        self.start_over()
        self.busy_until, self.quiet_until, self.news_from = EVER, NEVER, NEVER
        self.untold = self.news = self.unread > 0
        self.settle()

    # --- time ---

    @rule(pause=pauses)
    def time_passes(self, pause: float) -> None:
        """With a timer that is wound as `next_due` says."""
        until = self.now + pause
        while (due := self.ladder.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            self.tick()
        self.now = until

    @rule(pause=pauses)
    def time_jumps(self, pause: float) -> None:
        """As when the machine was asleep."""
        self.now += pause
        while (due := self.ladder.next_due()) is not None and due <= self.now:
            self.tick()

    @rule()
    def too_early(self) -> None:
        due = self.ladder.next_due()
        if due is None or due > self.now:
            assert self.ladder.tick(self.now) is None
            assert self.ladder.next_due() == due

    @precondition(lambda self: self.unread and self.armed)
    @rule(
        times=st.sampled_from([1, 1, 2, 3, 20]), then=st.sampled_from(["nothing", "turn", "used up", "broken", "read"])
    )
    def rings(self, times: int, then: str) -> None:
        """Whatever happened before: unread mail and an armed rung end in a ring, and it goes on from there."""
        for _ in range(times):
            rung = self.until_it_rings()
            if then == "turn":
                self.step()
                self.hear()
                self.rest()
            elif then == "used up":
                self.ladder.disarm(rung, self.now)
                self.armed.discard(rung)
                self.arm(rung, SETTLE)
            elif then == "broken":
                self.break_rung(rung)
                self.arm(rung, SETTLE)
        if then == "read":
            self.read_until(0)

    def until_it_rings(self) -> str:
        latest = max(self.now, self.busy_until, self.last_ring) + RUNG_TIME + LONGEST_PAUSE
        rung = None
        while rung is None:
            due = self.ladder.next_due()
            assert due is not None
            self.now = max(self.now, due)
            assert self.now <= latest
            rung = self.tick()
        return rung

    def tick(self) -> str | None:
        rung = self.ladder.tick(self.now)
        due = self.ladder.next_due()
        assert due is not None
        assert due > self.now  # else the timer would spin
        assert self.unread
        assert self.now >= self.busy_until
        untried = [r for r in RUNGS if r in self.armed and r not in self.round]
        if self.round:
            assert self.now >= self.last_ring + RUNG_TIME or self.broken
            if not untried:
                self.end_round()
                assert (rung is None) == (self.now < min(self.quiet_until, self.news_from))
                if rung is None:
                    return None
                untried = [r for r in RUNGS if r in self.armed]
        else:
            assert self.now >= (self.last_ring + NEWS_PAUSE if self.news_from < NEVER else self.quiet_until)
        assert rung == untried[0]
        self.told_by(rung)
        self.round.append(rung)
        self.last_ring, self.over = self.now, self.now + RUNG_TIME
        self.news = self.broken = False
        self.news_from = NEVER
        return rung

    def end_round(self) -> None:
        self.unanswered += bool(self.round)
        self.round, self.broken = [], False
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, self.unanswered - 1))
        self.quiet_until, self.news_from = self.now + pause, NEVER
        if self.news:
            self.news_from = self.soon(self.now)

    def soon(self, earliest: float) -> float:
        return max(earliest, self.settled, self.last_ring + NEWS_PAUSE)

    def told_by(self, teller: str) -> None:
        self.tellers = [*(told for told in self.tellers if told != teller), teller]

    # --- what must hold ---

    @invariant()
    def due_when_there_is_something_to_do(self) -> None:
        """No timer without mail or rung; with both always one, at the right time: no wake is lost, none is early."""
        due = self.ladder.next_due()
        if not self.unread or not self.armed:
            assert due is None
            return
        assert due == max(self.busy_until, self.over if self.round else min(self.quiet_until, self.news_from))
        assert due <= max(self.now, self.busy_until) + LONGEST_PAUSE

    @invariant()
    def tells_what_is(self) -> None:
        assert self.ladder.ladder() == [rung for rung in RUNGS if rung in self.armed]
        assert self.ladder.waiting_since == (self.since if self.unread else None)
        assert self.ladder.rung == (self.round[-1] if self.round else None)
        assert self.ladder.busy(self.now) == (self.now < self.busy_until)
        assert not self.armed & self.ladder.failed.keys()


LadderMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50)


TestLadder = LadderMachine.TestCase


# --- the same, one rule at a time ---


def a_ladder(*armed: str) -> PlainLadder:
    ladder = PlainLadder()
    for rung in armed:
        ladder.arm(rung, 0.0, 0.0)
    return ladder


def rings(ladder: PlainLadder, until: float) -> list[tuple[float, str]]:
    """What is rung up to that time, and when, by a timer that is wound as `next_due` says."""
    found = []
    while (due := ladder.next_due()) is not None and due <= until:
        rung = ladder.tick(due)
        if rung is not None:
            found.append((round(due, 2), rung))
    return found


def times(found: Iterable[tuple[float, str]]) -> list[float]:
    return [at for at, _ in found]


def test_the_surest_rung_rings_first_and_the_others_follow_if_nobody_reads() -> None:
    ladder = a_ladder("hook", "channel", "socket")
    ladder.mail(0.0)
    assert rings(ladder, 89.0) == [(0.0, "socket"), (30.0, "channel"), (60.0, "hook")]


def test_only_armed_rungs_ring() -> None:
    ladder = a_ladder("hook")
    ladder.mail(0.0)
    assert rings(ladder, 60.0) == [(0.0, "hook")]


def test_without_a_rung_nothing_is_due_and_the_first_one_that_comes_rings() -> None:
    ladder = PlainLadder()
    ladder.mail(0.0)
    assert ladder.next_due() is None
    ladder.arm("hook", 500.0, SETTLE)
    assert rings(ladder, 510.0) == [(503.0, "hook")]


def test_a_read_stops_everything() -> None:
    ladder = a_ladder("socket", "hook")
    ladder.mail(0.0)
    assert rings(ladder, 1.0) == [(0.0, "socket")]
    ladder.read(0, 2.0)
    assert ladder.next_due() is None
    assert ladder.waiting_since is None
    assert rings(ladder, DAY) == []


def test_somebody_who_waits_for_the_mail_has_a_moment_to_read_it_by_himself() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0, awaited=True)
    assert rings(ladder, 0.02) == []
    ladder.read(0, 0.02)
    assert rings(ladder, DAY) == []


def test_mail_that_whoever_waits_for_it_leaves_is_rung_for() -> None:
    """As one who listens for direct messages alone leaves a broadcast; the next that comes does not put it off."""
    ladder = a_ladder("socket")
    ladder.mail(0.0, awaited=True)
    ladder.mail(0.02, awaited=True)
    assert rings(ladder, 1.0) == [(MOMENT, "socket")]


def test_mail_that_nobody_waits_for_is_not_kept_by_mail_that_somebody_does() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0, awaited=True)
    ladder.mail(0.01)
    assert rings(ladder, 1.0) == [(0.01, "socket")]


def test_mail_of_one_instant_is_one_ring() -> None:
    ladder = a_ladder("socket")
    for _ in range(100):
        ladder.mail(0.0)
    assert rings(ladder, DAY)[:2] == [(0.0, "socket"), (90.0, "socket")]


def test_a_burst_is_rung_for_at_once_and_what_follows_is_gathered() -> None:
    """One ring more tells of the rest, if nobody has read by then."""
    ladder, seen = a_ladder("socket"), []
    for k in range(10):
        ladder.mail(k / 100)
        seen += rings(ladder, k / 100)
    seen += rings(ladder, 89.0)
    assert seen == [(0.0, "socket"), (NEWS_PAUSE, "socket")]


def test_a_burst_that_was_read_is_not_rung_for_again() -> None:
    ladder, seen = a_ladder("socket"), []
    for k in range(10):
        ladder.mail(k / 100)
        seen += rings(ladder, k / 100)
    ladder.read(0, 2.0)
    assert seen + rings(ladder, DAY) == [(0.0, "socket")]


def test_mail_behind_a_ring_is_told_by_the_next_rung_and_by_no_ring_of_its_own() -> None:
    ladder = a_ladder("socket", "hook")
    ladder.mail(0.0)
    seen = rings(ladder, 1.0)
    ladder.mail(1.0)
    assert seen + rings(ladder, 59.0) == [(0.0, "socket"), (30.0, "hook")]


def test_the_pauses_between_rounds_double_up_to_the_cap() -> None:
    """Each counts from the end of the last rung's time."""
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    at = times(rings(ladder, 2 * DAY))
    gaps = [round(b - a - RUNG_TIME) for a, b in pairwise(at)]
    assert gaps[:8] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert set(gaps[8:]) == {3600}


def test_after_a_read_the_pauses_are_short_again() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, DAY)
    ladder.read(0, DAY)
    ladder.mail(DAY + 10)
    assert rings(ladder, DAY + 101) == [(DAY + 10.0, "socket"), (DAY + 100.0, "socket")]


def test_a_rung_that_fails_is_followed_by_the_next_at_once() -> None:
    ladder = a_ladder("socket", "channel", "hook")
    ladder.mail(0.0)
    assert rings(ladder, 1.0) == [(0.0, "socket")]
    ladder.disarm("socket", 0.05, "refused")
    assert rings(ladder, 1.0) == [(0.05, "channel")]
    ladder.disarm("channel", 0.06, "closed")
    assert rings(ladder, 1.0) == [(0.06, "hook")]
    assert ladder.failed == {"socket": "refused", "channel": "closed"}


def test_a_rung_whose_failure_is_known_late_takes_nothing_from_the_one_that_rings() -> None:
    ladder = a_ladder("socket", "hook")
    ladder.mail(0.0)
    rings(ladder, 31.0)
    ladder.disarm("socket", 32.0, "timed out")
    assert ladder.rung == "hook"
    assert ladder.next_due() == pytest.approx(60.0)
    ladder.read(0, 33.0)
    assert ladder.worked == worked("hook", 33.0, 33.0)
    assert ladder.failed == {"socket": "timed out"}


def test_a_failed_rung_has_no_credit_for_a_read_and_is_still_shown_as_failed() -> None:
    """Whoever read did so without having been told."""
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.disarm("socket", 1.0, "refused")
    ladder.read(0, 5.0)
    assert ladder.worked is None
    assert ladder.failed == {"socket": "refused"}


def test_the_credit_goes_back_to_the_rung_before_the_one_that_failed() -> None:
    ladder = a_ladder("socket", "hook")
    ladder.mail(0.0)
    rings(ladder, 31.0)
    ladder.disarm("hook", 31.0, "gone")
    ladder.read(0, 40.0)
    assert ladder.worked == worked("socket", 40.0, 40.0)


def test_mail_of_which_only_a_failed_rung_told_is_news_for_the_next_that_comes() -> None:
    """It waits for no pause: nobody has heard of it yet."""
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.disarm("socket", 1.0, "refused")
    ladder.arm("hook", 5.0, SETTLE)
    assert rings(ladder, 60.0) == [(8.0, "hook")]


def test_a_failed_rung_that_is_armed_anew_is_tried_again_sooner_than_one_that_was_ignored() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.disarm("socket", 1.0, "refused")
    ladder.arm("socket", 5.0, SETTLE)
    assert rings(ladder, 60.0) == [(NEWS_PAUSE, "socket")]


def test_a_rung_that_fails_whenever_it_is_armed_is_not_tried_in_a_tight_loop() -> None:
    ladder, count = PlainLadder(), 0
    ladder.mail(0.0)
    for second in range(300):
        ladder.arm("socket", float(second))
        for at, rung in rings(ladder, second + 0.9):
            count += 1
            ladder.disarm(rung, at, "refused")
    assert count <= 300 / NEWS_PAUSE + 1


def test_a_used_up_hook_that_is_armed_anew_does_not_ring_in_a_tight_loop() -> None:
    """A client fires its Stop hook after each woken turn, and that arms the next one."""
    ladder = a_ladder("hook")
    ladder.mail(0.0)
    seen = []
    for tenth in range(36_000):
        now = tenth / 10
        for at, rung in rings(ladder, now):
            seen.append(at)
            ladder.disarm(rung, at)
        ladder.arm("hook", now, SETTLE)
    assert [round(at) for at in seen] == [0, 90, 240, 510, 1020, 2010]


def test_a_woken_turn_that_reads_nothing_is_a_round_like_any_other() -> None:
    """Busy after each ring, and idle again with the mail unread: the pauses grow all the same."""
    ladder, seen = a_ladder("socket"), []
    ladder.mail(0.0)
    while (due := ladder.next_due()) is not None and due < 10_000:
        if ladder.tick(due) is not None:
            seen.append(due)
            ladder.stepped(due + 0.2)
            ladder.rested(due + 5.0)
    assert [round(b - a) for a, b in pairwise(seen)] == [65, 125, 245, 485, 965, 1925, 3605]


@pytest.mark.parametrize("rested_first", [True, False])
def test_the_order_of_the_two_hooks_at_the_end_of_a_turn_does_not_matter(rested_first: bool) -> None:
    """One says that the session is idle, the other waits: they run side by side. The pause begins with the rest."""
    ladder = a_ladder("hook")
    ladder.mail(0.0)
    assert rings(ladder, 1.0) == [(0.0, "hook")]
    ladder.disarm("hook", 0.0)
    ladder.stepped(0.2)
    ladder.heard()
    ladder.stepped(600.0)
    if rested_first:
        ladder.rested(601.0)
        ladder.arm("hook", 601.1, SETTLE)
    else:
        ladder.arm("hook", 600.9, SETTLE)
        ladder.rested(601.0)
    assert rings(ladder, 700.0) == [(661.0, "hook")]


def test_new_mail_to_somebody_who_ignores_rings_rings_at_most_every_so_often() -> None:
    """Also if each ring begins a turn that reads nothing."""
    for turns in (False, True):
        ladder, seen = a_ladder("socket"), []
        for second in range(600):
            ladder.mail(float(second))
            for at, _ in rings(ladder, second + 0.9):
                seen.append(at)
                if turns:
                    ladder.stepped(at)
            ladder.rested(second + 0.95)
        gaps = [b - a for a, b in pairwise(seen)]
        assert min(gaps) >= NEWS_PAUSE - 1e-6
        assert max(gaps) <= NEWS_PAUSE + 1.1


def test_mail_that_comes_while_a_rung_rings_is_rung_for_when_its_time_is_over() -> None:
    """It waits no longer than mail that comes a little later, when the pause has begun."""
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    assert rings(ladder, 1.0) == [(0.0, "socket")]
    ladder.mail(1.0)
    assert rings(ladder, 40.0) == [(30.0, "socket")]


def test_new_mail_in_a_long_pause_rings() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, DAY)
    due = ladder.next_due()
    assert due is not None
    ladder.mail(due - 1000)
    assert rings(ladder, due - 999) == [(round(due - 1000, 2), "socket")]


def test_a_rung_that_is_armed_in_a_pause_waits_for_its_end() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 31.0)
    ladder.arm("hook", 40.0)
    assert rings(ladder, 121.0) == [(90.0, "socket"), (120.0, "hook")]


def test_a_rung_that_is_armed_while_another_rings_is_the_next() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.arm("hook", 10.0)
    assert rings(ladder, 31.0) == [(30.0, "hook")]


def test_a_rung_that_goes_while_another_rings_changes_nothing_for_it() -> None:
    ladder = a_ladder("socket", "hook")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.disarm("hook", 2.0)
    assert ladder.rung == "socket"
    assert ladder.next_due() == pytest.approx(30.0)
    assert rings(ladder, 91.0) == [(90.0, "socket")]


def test_what_is_left_after_a_read_is_rung_for_after_a_pause() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.read(3, 10.0)
    assert ladder.waiting_since == 10.0
    assert rings(ladder, 71.0) == [(70.0, "socket")]


def test_new_mail_after_such_a_read_rings_at_once() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.read(3, 10.0)
    ladder.mail(12.0)
    assert rings(ladder, 40.0) == [(12.0, "socket")]


def test_mail_that_came_just_before_such_a_read_does_not_wait_for_the_pause() -> None:
    """Whoever reads was not told of it; it may be about to read that, too."""
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.mail(9.0)
    ladder.read(1, 10.0)
    assert rings(ladder, 40.0) == [(13.0, "socket")]


def test_new_mail_does_not_wait_less_than_what_such_a_read_left() -> None:
    """The same ring tells of both, if the session does not read by itself before."""
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.mail(9.0)
    ladder.read(1, 10.0)
    ladder.mail(11.0)
    assert rings(ladder, 40.0) == [(10.0 + SETTLE, "socket")]


def test_mail_after_everything_was_read_is_rung_for_at_once() -> None:
    """Also right behind reads that left some: the session has read by itself, as was hoped."""
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.mail(1.0)
    ladder.read(1, 2.0)
    ladder.read(0, 2.1)
    ladder.mail(2.2)
    assert rings(ladder, 30.0) == [(2.2, "socket")]


# --- a session at work ---


def test_a_busy_session_is_not_rung_and_told_once() -> None:
    ladder = a_ladder("socket")
    ladder.stepped(0.0)
    ladder.mail(1.0)
    assert [ladder.tell(), ladder.tell()] == [True, False]
    ladder.stepped(100.0)
    assert rings(ladder, 279.0) == []
    ladder.mail(200.0)
    assert [ladder.tell(), ladder.tell()] == [True, False]
    ladder.read(0, 201.0)
    assert ladder.worked == worked(STEP, 201.0, 200.0)


def test_a_busy_session_that_is_never_heard_of_again_counts_as_idle_after_a_while() -> None:
    """After an interrupt no hook comes at all."""
    ladder = a_ladder("socket")
    ladder.stepped(0.0)
    ladder.mail(1.0)
    assert rings(ladder, 200.0) == [(BUSY_TIME, "socket")]


def test_at_rest_it_is_rung_at_once_for_what_it_was_not_told() -> None:
    ladder = a_ladder("socket")
    ladder.stepped(0.0)
    ladder.mail(1.0)
    ladder.rested(5.0)
    assert rings(ladder, 30.0) == [(5.03, "socket")]


def test_mail_that_comes_in_the_moment_of_rest_is_rung_for_when_that_is_over() -> None:
    """The hook that tells of the rest has to end first."""
    for waits in (False, True):
        ladder = a_ladder("socket")
        ladder.stepped(0.0)
        if waits:
            ladder.mail(1.0)
        ladder.rested(5.0)
        ladder.mail(5.01)
        assert rings(ladder, 30.0) == [(5.03, "socket")]


def test_rest_ends_the_wait_for_a_read_of_its_own() -> None:
    ladder = a_ladder("socket")
    ladder.stepped(0.0)
    ladder.mail(1.0)
    ladder.read(1, 4.0)
    ladder.rested(5.0)
    assert rings(ladder, 30.0) == [(5.03, "socket")]


def test_at_rest_it_is_rung_after_a_pause_for_what_it_was_told() -> None:
    ladder = a_ladder("socket")
    ladder.stepped(0.0)
    ladder.mail(1.0)
    assert ladder.tell()
    ladder.rested(5.0)
    assert rings(ladder, 70.0) == [(65.0, "socket")]


def test_turns_without_a_ring_do_not_make_the_pause_longer() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    for turn in range(10):
        ladder.stepped(10.0 * turn)
        ladder.tell()
        ladder.rested(10.0 * turn + 5)
    assert rings(ladder, 160.0) == [(155.0, "socket")]


def test_a_session_that_was_idle_anyway_changes_nothing_by_saying_so() -> None:
    """A client says so again a minute after the end of a turn: a rung that rings goes on, a pause stays as it is."""
    ladder = a_ladder("socket", "hook")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.rested(2.0)
    assert rings(ladder, 31.0) == [(30.0, "hook")]
    ladder.tick(60.0)
    ladder.rested(70.0)
    assert rings(ladder, 121.0) == [(120.0, "socket")]


def test_a_rung_is_not_followed_by_the_next_while_the_session_works_on_it() -> None:
    ladder = a_ladder("socket", "hook")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.stepped(1.0)
    assert rings(ladder, BUSY_TIME) == []


def test_a_ring_that_the_session_heard_is_not_told_again() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.heard()
    assert not ladder.tell()


def test_a_ring_that_nobody_heard_does_not_keep_the_session_from_being_told() -> None:
    """A rung that swallows what it is given, as one whose format has changed, must not cost the mail."""
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.stepped(20.0)
    assert ladder.tell()


def test_mail_after_the_ring_that_was_heard_is_told() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, 1.0)
    ladder.mail(1.0)
    ladder.heard()
    assert [ladder.tell(), ladder.tell()] == [True, False]


# --- readers come and go ---


def test_another_reader_is_told_and_rung_whatever_the_one_before_was() -> None:
    """The first was busy, had been told, and had ignored it for a day."""
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    rings(ladder, DAY)
    ladder.tell()
    ladder.stepped(DAY)
    ladder.disarm("socket", DAY)
    ladder.anew(DAY)
    assert ladder.tell()
    ladder.arm("socket", DAY + 1, SETTLE)
    assert rings(ladder, DAY + 29) == [(DAY + 4, "socket")]
    assert rings(ladder, DAY + 100) == [(DAY + 94, "socket")]


def test_a_new_reader_without_mail_is_left_alone() -> None:
    ladder = a_ladder("socket")
    ladder.anew(0.0)
    assert not ladder.tell()
    assert rings(ladder, DAY) == []


def test_mail_of_an_earlier_run_is_told_and_rung_for() -> None:
    ladder = PlainLadder()
    ladder.found(0.0)
    ladder.arm("hook", 1.0, SETTLE)
    assert rings(ladder, 30.0) == [(4.0, "hook")]
    assert ladder.tell()


def test_waited_counts_from_the_oldest_mail() -> None:
    ladder = a_ladder("socket")
    ladder.mail(100.0)
    rings(ladder, 101.0)
    ladder.mail(110.0)
    ladder.read(0, 112.5)
    assert ladder.worked == worked("socket", 112.5, 12.5)


def test_a_wake_that_worked_is_dated_by_the_wall_clock_and_measured_by_the_other() -> None:
    """A clock that was set between the two does not make a wake look long."""
    ladder = a_ladder("socket")
    ladder.mail(100.0)
    rings(ladder, 101.0)
    ladder.read(0, 102.0, wall=5.0)
    assert ladder.worked == ("socket", 5.0, 2.0)


def test_the_last_one_who_told_has_the_credit() -> None:
    ladder = a_ladder("socket", "hook")
    ladder.mail(0.0)
    rings(ladder, 31.0)
    ladder.read(0, 32.0)
    assert ladder.worked == worked("hook", 32.0, 32.0)


def test_a_read_that_nobody_told_of_is_no_proof_of_a_rung() -> None:
    ladder = a_ladder("socket")
    ladder.mail(0.0)
    ladder.read(0, 0.01)
    ladder.mail(50.0)
    rings(ladder, 51.0)
    ladder.read(0, 52.0)
    ladder.mail(60.0)
    ladder.read(0, 60.01)
    assert ladder.worked == worked("socket", 52.0, 2.0)
