"""A name moves from one machine to another while the old holder is stopped, cut off, or in the middle of something:
no message at two places but where the contract says so, and none lost."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import pytest

from tests.faults.conftest import Two
from tests.faults.machines import (
    LEASE,
    LONG,
    MAY_COME_AGAIN,
    ROUNDS,
    History,
    Machine,
    Tally,
    answer_of,
    gone_from,
    needs_a_compiler,
    rounds_take,
)
from tests.faults.way import Way
from tests.helper import Rpc, RpcError, wait_until

Capsys = pytest.CaptureFixture[str]


def received(machine: Machine, name: str, count: int, deadline: float = 20) -> None:
    wait_until(lambda: machine.unread(name) >= count, f"{machine.label} has {count} for {name}", deadline)


def held_by_b(two: Two, name: str, unread: int) -> History:
    """A name that b holds, and so many unread messages on b's disk."""
    history = History(name)
    two.b.register(name)
    two.a.send(name, history.new(unread))
    received(two.b, name, unread)
    return history


def goes_on_at_a(two: Two, history: History) -> None:
    """What is sent from now on comes at a."""
    two.a.send(history.name, history.new(2))
    history.drain_all(two.a)


# --- the holder is stopped ---


@rounds_take(20)
def test_an_inbox_of_a_stopped_holder(two: Two, capsys: Capsys) -> None:
    """A call that waits when the daemon goes on: on an open connection, of a new command, or begun after that."""
    a, b, _ = two
    tally = Tally()
    for n in range(ROUNDS):
        history = held_by_b(two, f"bob{n}", 10)
        with b.home.rpc() as rpc:
            rpc.call("status")
            b.stop()
            waiting = rpc.send("inbox", name=history.name, ack="explicit") if n % 3 == 0 else None
            if n % 3 == 1:
                with b.asking(history.name) as process:
                    _taken_and_read(a, b, history)
                    code, out, _ = process.end()
            else:
                _taken_and_read(a, b, history)
                done = b.home.run("inbox", history.name) if n % 3 == 2 else None
                code, out = (done.returncode, done.stdout) if done else (7, "")
            history.printed(b, out)
            tally.expect(code == 7, f"{history.name}: inbox at the old holder: exit {code}")
            if waiting is not None:
                _nothing_is_given(b, rpc, history, waiting, tally)
        gone_from(b, history.name)
        goes_on_at_a(two, history)
        tally.add(history)
    tally.check(capsys)


def _taken_and_read(a: Machine, b: Machine, history: History) -> None:
    """a takes the name from b, which is stopped, and reads its mail; then b goes on."""
    try:
        a.register(history.name, "--takeover")
        history.drain_all(a)
    finally:
        b.go_on()


def _nothing_is_given(b: Machine, rpc: Rpc, history: History, request: int, tally: Tally) -> None:
    answer = answer_of(rpc, request)
    if "error" in answer:
        tally.expect(answer["error"]["data"]["kind"] == "not_allowed", f"{history.name}: {answer['error']}")
        return
    receipt, texts = history.given(b, answer["result"])
    tally.expect(False, f"{history.name}: the old holder hands out {len(texts)}")
    if receipt is not None:
        history.confirm(b, rpc, receipt, texts)


@rounds_take(20)
def test_a_listen_of_a_stopped_holder(two: Two, capsys: Capsys) -> None:
    """The mail comes before the takeover, so that it lies in the stopped daemon's connection, after it, or both."""
    a, b, _ = two
    tally = Tally()
    for n in range(ROUNDS):
        history = History(f"bob{n}")
        with b.listening(history.name) as listening:
            with b.stopped():
                if n % 3 != 0:
                    a.send(history.name, history.new(5))
                a.register(history.name, "--takeover")
                if n % 3 != 1:
                    a.send(history.name, history.new(5))
                history.drain_all(a)
            code, out, err = listening.end()
        history.printed(b, out)
        tally.expect(code == 7, f"{history.name}: listen at the old holder: exit {code}: {out}{err}")
        gone_from(b, history.name)
        goes_on_at_a(two, history)
        tally.add(history)
    tally.check(capsys)


@rounds_take(10)
def test_a_takeover_says_what_may_come_again(two: Two) -> None:
    """From a holder that does not answer: to whoever takes it, on his terminal. From one that answers: no such word."""
    a, b, _ = two
    held_by_b(two, "bob", 2)
    done = a.register("bob", "--takeover")
    assert not MAY_COME_AGAIN.search(_told(a, done.stdout + done.stderr, "bob"))
    held_by_b(two, "carol", 2)
    with b.stopped():
        done = a.register("carol", "--takeover")
        assert MAY_COME_AGAIN.search(_told(a, done.stdout + done.stderr, "carol")), done
    gone_from(b, "carol")


def _told(machine: Machine, said: str, name: str) -> str:
    return "\n".join([said, *machine.home.notify_lines(name)])


# --- the holder is cut off ---

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
        said = _told(a, done.stdout + done.stderr, history.name)
        tally.expect(MAY_COME_AGAIN.search(said), f"{history.name}: not told that it may come again: {said!r}")
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


# --- a hand-over is under way ---


@rounds_take(10)
def test_a_hand_over_under_way(two: Two, capsys: Capsys) -> None:
    """What a client holds when the name moves is unread at the new holder, and read there alone."""
    a, b, _ = two
    tally = Tally()
    for n in range(ROUNDS):
        history = held_by_b(two, f"bob{n}", 10)
        with b.home.rpc() as rpc:
            receipt, texts = history.take(b, rpc)
            tally.expect(len(texts) == 10, f"{history.name}: {len(texts)} of 10 handed out")
            a.register(history.name, "--takeover")
            if n % 2 == 0:
                history.drain_all(a)
            error = history.confirm(b, rpc, receipt, texts)
        why = None if error is None else error.error
        tally.expect(
            why and (why["data"]["kind"], why["data"]["exit_code"]) == ("not_allowed", 7),
            f"{history.name}: the old holder's confirm is answered {why or 'with success'}",
        )
        goes_on_at_a(two, history)
        history.drain(a)
        missing = set(history.sent) - {text for place, text in history.read if place == "a"}
        tally.expect(not missing, f"{history.name}: {len(missing)} not read at the new holder")
        tally.add(history, twice=history.read_twice())
    tally.check(capsys)


# --- the lease is lost ---


@rounds_take(30)
@pytest.mark.parametrize("how", ["its key is deleted", "the store is emptied"])
def test_a_lease_that_vanished(two: Two, how: str, capsys: Capsys) -> None:
    """The other one registers without a takeover: it is refused, or the first notices before it hands out more.
    Whichever is asked first, and mail that comes then."""
    a, b, store = two
    tally = Tally()
    for n in range(ROUNDS):
        history = held_by_b(two, f"bob{n}", 10)
        with store.client() as client:
            if how == "the store is emptied":
                client.flushall()
            else:
                assert client.delete(f"mesh:lease:{history.name}") == 1
        done = a.home.run("register", history.name)
        tally.expect(done.returncode in (0, 7), f"{history.name}: register: exit {done.returncode}: {done.stderr}")
        tally.counts["taken"] += done.returncode == 0
        for machine in (a, b) if n % 2 == 0 else (b, a):
            _ask(history, machine, registered=done.returncode == 0 or machine is b)
        a.send(history.name, history.new(3))
        holders = (a, b) if done.returncode == 0 else (b,)
        history.drain_all(*holders)
        for machine in holders:  # the other one might have the same
            history.drain(machine)
        holding = [machine.label for machine in (a, b) if machine.hosts(history.name)]
        tally.expect(len(holding) == 1, f"{history.name}: held at {holding}")
        tally.add(history)
        for machine in (a, b):
            machine.home.run("deregister", history.name)
    tally.check(capsys)


def _ask(history: History, machine: Machine, *, registered: bool) -> None:
    """Only where the name is hosted, as far as is known: an inbox would register it."""
    if registered:
        history.drain(machine)


# --- a long backlog ---


@rounds_take(60)
def test_a_backlog_over_the_stream_s_bound(two: Two, capsys: Capsys) -> None:
    """All of it moves, in order and each once; a part is read at the new holder, and the rest moves back."""
    a, b, _ = two
    tally = Tally()
    count = 5000
    for n in range(ROUNDS if LONG else 1):
        history = held_by_b(two, f"bob{n}", count)
        a.register(history.name, "--takeover")
        _wait_for(a, history.name, count)
        history.drain(a, 100)
        b.register(history.name, "--takeover")
        _wait_for(b, history.name, count - 100)
        history.drain_all(b)
        b.home.run("deregister", history.name)
        there = [text for _, text in history.handed]
        tally.expect(there == sorted(there), f"{history.name}: out of order")
        tally.add(history)
    tally.check(capsys)


def _wait_for(machine: Machine, name: str, count: int) -> None:
    """What does not come is counted at the end."""
    try:
        received(machine, name, count)
    except AssertionError:
        return
