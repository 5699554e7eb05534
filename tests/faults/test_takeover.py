"""A name moves from one machine to another while the old holder is stopped, cut off, or in the middle of something:
no message at two places but where the contract says so, and none lost."""

from __future__ import annotations

import select

import pytest

from tests.cli.running import running
from tests.faults.machines import (
    LONG,
    MAY_COME_AGAIN,
    ROUNDS,
    History,
    Machine,
    Tally,
    answer_of,
    gone_from,
    rounds_take,
)
from tests.faults.two import Two, goes_on_at_a, held_by_b, received, told

Capsys = pytest.CaptureFixture[str]


# --- the holder is stopped ---


@rounds_take(20)
def test_an_inbox_of_a_stopped_holder(two: Two, capsys: Capsys) -> None:
    """A call that waits when the daemon goes on: on an open connection, there also before the store can be asked, of
    a new command, or of one begun after that."""
    tally = Tally()
    for n in range(ROUNDS):
        history = held_by_b(two, f"bob{n}", 10)
        _INBOXES[n % len(_INBOXES)](two, history, tally)
        gone_from(two.b, history.name)
        goes_on_at_a(two, history)
        tally.add(history)
    tally.check(capsys)


def _asked_before_the_store_can_be(two: Two, history: History, tally: Tally) -> None:
    """As when a lid is opened: somebody asks, and a moment later the network is there."""
    two.b.way.freeze()
    _asked_on_an_open_connection(two, history, tally)


def _asked_on_an_open_connection(two: Two, history: History, tally: Tally) -> None:
    a, b, _ = two
    with b.home.rpc() as rpc:
        rpc.call("status")
        with b.stopped():
            request = rpc.send("inbox", name=history.name, ack="explicit")
            _taken_and_read(a, history)
        select.select([rpc.socket], [], [], 1.0)  # a daemon that asks first answers later
        b.way.heal()
        answer = answer_of(rpc, request)
        if "error" in answer:
            kind = answer["error"]["data"]["kind"]
            tally.expect(kind == "not_allowed", f"{history.name}: inbox at the old holder: {answer['error']}")
            return
        receipt, texts = history.given(b, answer["result"])
        tally.expect(False, f"{history.name}: the old holder hands out {len(texts)}")
        if receipt is not None:
            history.confirm(b, rpc, receipt, texts)


def _asked_by_a_command_that_waits(two: Two, history: History, tally: Tally) -> None:
    a, b, _ = two
    b.stop()
    with running(b.home, "inbox", history.name) as process:
        try:
            _taken_and_read(a, history)
        finally:
            b.go_on()
        code, out, err = process.end()
    history.printed(b, out)
    tally.expect(code == 7, f"{history.name}: exit {code}: {out}{err}")


def _asked_by_a_command_begun_after(two: Two, history: History, tally: Tally) -> None:
    a, b, _ = two
    with b.stopped():
        _taken_and_read(a, history)
    done = b.home.run("inbox", history.name)
    history.printed(b, done.stdout)
    tally.expect(done.returncode == 7, f"{history.name}: exit {done.returncode}: {done.stdout}{done.stderr}")


_INBOXES = (
    _asked_before_the_store_can_be,
    _asked_on_an_open_connection,
    _asked_by_a_command_that_waits,
    _asked_by_a_command_begun_after,
)


def _taken_and_read(a: Machine, history: History) -> None:
    a.register(history.name, "--takeover")
    history.drain_all(a)


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
    assert not MAY_COME_AGAIN.search(told(a, done.stdout + done.stderr, "bob"))
    held_by_b(two, "carol", 2)
    with b.stopped():
        done = a.register("carol", "--takeover")
        assert MAY_COME_AGAIN.search(told(a, done.stdout + done.stderr, "carol")), done
    gone_from(b, "carol")


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
    Whichever is asked first, and whether mail comes before that or after."""
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
        # Only where the name is hosted, as far as is known: an inbox would register it.
        holders = (a, b) if done.returncode == 0 else (b,)
        if n % 2 == 0:
            a.send(history.name, history.new(3))
            received(holders[0], history.name, 3)
        for machine in holders if n % 4 < 2 else reversed(holders):
            history.drain(machine)
        a.send(history.name, history.new(3))
        history.drain_all(*holders)
        for machine in holders:  # the other one might have the same
            history.drain(machine)
        holding = [machine.label for machine in (a, b) if machine.hosts(history.name)]
        tally.expect(len(holding) == 1, f"{history.name}: held at {holding}")
        tally.add(history)
        for machine in (a, b):
            machine.home.run("deregister", history.name)
    tally.check(capsys)


# --- a long backlog ---


@rounds_take(60)
def test_a_backlog_over_the_stream_s_bound(two: Two, capsys: Capsys) -> None:
    """All of it moves, in order and each once; a part is read at the new holder, and the rest moves back."""
    a, b, _ = two
    tally = Tally()
    count = 9000  # more than is remembered of what lies on the disk
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
