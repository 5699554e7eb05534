"""A name moves while its holder is cut off from the store: what it may hand out, for how long, and who is told."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import pytest

from tests.faults.machines import (
    LEASE,
    LONG,
    MAY_COME_AGAIN,
    ROUNDS,
    History,
    Tally,
    gone_from,
    needs_a_compiler,
    rounds_take,
)
from tests.faults.two import Two, goes_on_at_a, held_by_b, told
from tests.faults.way import Way
from tests.helper import RpcError

Capsys = pytest.CaptureFixture[str]

BROKEN: dict[str, Callable[[Way], None]] = {"refused": Way.refuse, "frozen": Way.freeze, "half-open": Way.half_open}


@needs_a_compiler
@rounds_take(30)
@pytest.mark.parametrize("how", BROKEN)
def test_a_holder_that_is_cut_off(two_with_clock: Two, how: str, capsys: Capsys) -> None:
    """For as long as its lease can last it may hand out what it has; when that time is over, which it spends asleep,
    it hands out nothing. The new holder's user is told that."""
    two = two_with_clock
    _cut_off(two, BROKEN[how], functools.partial(two.b.sleep, LEASE + 20), capsys)


@pytest.mark.skipif(not LONG, reason="waits for a lease to run out: FAULT_ROUNDS=20")
@rounds_take(40)
def test_a_holder_that_is_cut_off_and_awake_for_longer_than_its_lease(two: Two, capsys: Capsys) -> None:
    _cut_off(two, Way.refuse, functools.partial(time.sleep, LEASE + 5), capsys)  # the time is what is tested


def _cut_off(two: Two, cut: Callable[[Way], None], let_the_lease_run_out: Callable[[], None], capsys: Capsys) -> None:
    a, b, _ = two
    tally = Tally()
    histories = [held_by_b(two, f"bob{n}", 10) for n in range(ROUNDS)]
    cut(b.way)
    named: dict[str, list[str]] = {}
    for history in histories:
        done = a.register(history.name, "--takeover")
        said = told(a, done.stdout + done.stderr, history.name)
        tally.expect(MAY_COME_AGAIN.search(said), f"{history.name}: not told that it may come again: {done.stdout}")
        history.drain_all(a)
        before = len(history.handed)
        history.drain(b, 5)
        named[history.name] = [text for _, text in history.handed[before:]]
    let_the_lease_run_out()
    for history in histories:
        before = len(history.handed)
        error = history.drain(b)
        count = len(history.handed) - before
        tally.expect(count == 0, f"{history.name}: {count} handed out after the lease's time")
        _says_why(error, history, tally)
    b.way.heal()
    for history in histories:
        gone_from(b, history.name, 60)
        code = b.home.run("inbox", history.name).returncode
        tally.expect(code == 7, f"{history.name}: inbox where it was: exit {code}")
        goes_on_at_a(two, history)
        tally.counts["at two places within the lease's time"] += len(named[history.name])
        tally.add(history, twice=history.twice(but=named[history.name]))
    tally.check(capsys)


def _says_why(error: RpcError | None, history: History, tally: Tally) -> None:
    why = None if error is None else error.error
    tally.expect(
        why and why["data"]["exit_code"] in (4, 7), f"{history.name}: answered {why} where nothing is to be had"
    )
