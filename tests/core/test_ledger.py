"""Replies owed to an agent, through any history: re-pings and the escalation come on time, and never too often."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshd.core.agent import AgentCore
from meshd.core.clock import Wall
from meshd.core.ledger import MAX_PINGS, Ends, Escalate, Reping, derived_id, entry_for, sent_repings
from meshd.core.message import PREVIEW, decode
from meshd.core.records import Entry, Moved, Pinged, Position, Sent
from tests.core.model import KEYS, LIMIT, Fields, Machine, fields, fold, state

# From SPEC.md, section 5: after each re-ping this long until the next step, the last of which escalates.
AFTER = {1: 30.0, 2: 60.0, 3: 120.0, 4: 240.0}
peers = st.sampled_from(["bob", "carol"])
crashes = st.none() | st.integers(0, 6)
pauses = st.sampled_from([0.0, 0.5, 1.0, 29.9, 30.0, 60.0, 120.0, 240.0, 1000.0])


class Expected:
    """What the contract says of one entry, told only by what the test did."""

    def __init__(self, to: str, due: float) -> None:
        self.to = to
        self.due: float | None = due  # when the next step is decided; None while one is on its way, or for ever
        self.state = "open"  # open, responded, closed
        self.step = 0
        self.in_flight = False
        self.bounced: list[int] = []  # steps for which there was no room


class LedgerMachine(RuleBasedStateMachine):
    """An agent with replies owed to it, a peer, a store that may be down, and a process that may die anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.alice = Machine("alice")
        self.now = Wall(1000.0)
        self.ids = map("m{}".format, itertools.count())
        self.at = itertools.count(1)
        self.entries: dict[str, Expected] = {}
        self.stored: dict[str, tuple[str, int]] = {}  # id in the store -> the entry and the step it belongs to

    @property
    def core(self) -> AgentCore:
        return self.alice.core

    # --- what the user does ---

    @rule(to=peers, within=st.sampled_from([0.0, 1.0, 120.0]), crash=crashes)
    def open(self, to: str, within: float, crash: int | None) -> None:
        entry_id = next(self.ids)
        self.alice.execute(lambda: self.core.open_reply(entry_id, to, "x" * 300, self.now, within), crash)
        if entry_id in self.core.ledger.entries:  # else it died before the entry was on the disk: nothing was sent
            self.entries[entry_id] = Expected(to, self.now + within)

    @rule(data=st.data(), crash=crashes)
    def close(self, data: st.DataObject, crash: int | None) -> None:
        if not self.entries:
            return
        ids = data.draw(st.lists(st.sampled_from(sorted(self.entries)), unique=True))
        self.alice.execute(lambda: self.core.close_replies(ids), crash)
        for entry_id in ids:
            if entry_id not in self.core.ledger.entries:
                self.entries[entry_id].state = "closed"

    @rule(data=st.data())
    def open_the_same_again(self, data: st.DataObject) -> None:
        """A caller that repeats a call gets no second entry, and moves no deadline."""
        known = sorted(self.core.ledger.entries)
        if known:
            again = data.draw(st.sampled_from(known))
            assert self.core.open_reply(again, "bob", "y", self.now, 1.0) == []

    # --- what the peer does ---

    def message(self, flat: Fields, crash: int | None) -> bool:
        number = next(self.at)
        entry = decode(f"{number}-0".encode(), flat, KEYS, LIMIT)
        before = len(self.alice.disk)
        self.alice.execute(lambda: self.core.receive([entry], f"{number}-0", self.now), crash)
        return len(self.alice.disk) > before

    @rule(sender=peers, kind=st.sampled_from(["plain", "request", "re-ping"]), crash=crashes)
    def peer_writes(self, sender: str, kind: str, crash: int | None) -> None:
        flat = fields(from_=sender, msg="still busy", ts="1", id=next(self.ids))
        if kind == "request":
            flat += fields(expect_reply="1")
        elif kind == "re-ping":
            flat += fields(about="something")
        if self.message(flat, crash) and kind != "re-ping":
            self.responded(sender)

    def responded(self, sender: str) -> None:
        for expected in self.entries.values():
            if expected.to == sender and expected.state == "open":
                expected.state, expected.due, expected.in_flight = "responded", None, False

    @rule(data=st.data(), sender=peers, ping=st.integers(0, MAX_PINGS), crash=crashes)
    def peer_answers(self, data: st.DataObject, sender: str, ping: int, crash: int | None) -> None:
        """It settles what it names, or asks again, and only that. What settles nothing is a sign of life."""
        if self.entries:
            answered = data.draw(st.sampled_from(sorted(self.entries)))
            expected = self.entries[answered]
            settles = expected.state != "closed" and ping <= expected.step
            named = derived_id(answered, ping) if ping else answered
            if self.message(fields(from_=sender, msg="yes", ts="1", id=next(self.ids), re=named), crash):
                if settles:
                    expected.state = "closed"
                else:
                    self.responded(sender)

    # --- what the daemon does ---

    @rule(pause=pauses, crash=crashes)
    def time_passes(self, pause: float, crash: int | None) -> None:
        self.now = Wall(self.now + pause)
        due = {i for i, e in self.entries.items() if e.state == "open" and e.due is not None and e.due <= self.now}
        pings = {i: entry.pings for i, entry in self.core.ledger.entries.items()}
        came_through = self.alice.execute(lambda: self.core.tick(self.now), crash)
        decided = {i for i, entry in self.core.ledger.entries.items() if entry.pings != pings[i]}
        assert decided == due if came_through else decided <= due
        for entry_id in decided:
            expected = self.entries[entry_id]
            expected.step += 1
            expected.due, expected.in_flight = None, True
            assert self.core.ledger.entries[entry_id].pings == expected.step

    @rule(fate=st.sampled_from(["sent", "sent, then died", "store down", "answer lost", "full"]), crash=crashes)
    def send_what_was_decided(self, fate: str, crash: int | None) -> None:
        for action in self.core.ledger.unsent():
            if fate == "store down":
                return
            if fate == "full":
                self.bounce(action, crash)
                continue
            self.put_in_store(action)
            if fate == "answer lost":
                continue
            if fate == "sent, then died":
                self.alice.restart()
                return
            if not self.alice.execute(partial(self.core.mark_sent, action.about, self.now), crash):
                self.note_sent(action)
                return
            self.note_sent(action)

    def bounce(self, action: Reping | Escalate, crash: int | None) -> None:
        """There was no room for a re-ping until what follows was due, which is now. An escalation goes on trying."""
        if isinstance(action, Escalate) or action.id in self.stored:  # what the store has is known there by its id
            return
        said = len(self.alice.lines)
        came_through = self.alice.execute(partial(self.core.bounce, action.about, "not sent: full", self.now), crash)
        entry, expected = self.core.ledger.entries[action.about], self.entries[action.about]
        if not entry.unsent:
            expected.bounced.append(action.k)
            expected.in_flight, expected.due = False, self.now
        if came_through:
            line = f"⚠ re-ping {action.k}/4 was not sent: full [{action.about}]"
            assert (entry.unsent, self.alice.lines[said:]) == (False, [line])

    def put_in_store(self, action: Reping | Escalate) -> None:
        """As the store does it: a repeated id is the same message."""
        expected = self.entries[action.about]
        step = action.k if isinstance(action, Reping) else MAX_PINGS + 1
        assert step == expected.step
        assert action.id == derived_id(action.about, step)
        assert self.stored.setdefault(action.id, (action.about, step)) == (action.about, step)
        assert action.to == expected.to
        if isinstance(action, Reping):
            assert action.text == f"[re-ping {step}/4] " + "x" * PREVIEW

    def note_sent(self, action: Reping | Escalate) -> None:
        entry = self.core.ledger.entries.get(action.about)
        expected = self.entries[action.about]
        if isinstance(action, Escalate):
            if entry is None:
                expected.state = "closed"
        elif entry is not None and not entry.unsent:
            expected.in_flight, expected.due = False, self.now + AFTER[expected.step]

    @rule()
    def restart(self) -> None:
        self.alice.restart()

    @rule()
    def compact(self) -> None:
        self.alice.compact()

    # --- what must hold ---

    @invariant()
    def as_expected(self) -> None:
        """What is open, what is due, and what waits for the store is what the contract says."""
        live = {i: e for i, e in self.entries.items() if e.state != "closed"}
        assert set(self.core.ledger.entries) == set(live)
        for entry_id, expected in live.items():
            entry = self.core.ledger.entries[entry_id]
            assert (entry.state, entry.unsent) == (expected.state, expected.in_flight)
            assert (entry.due or None) == (expected.due or None)
        due = [e.due for e in live.values() if e.state == "open" and e.due is not None]
        assert self.core.next_due() == min(due, default=None)

    @invariant()
    def never_too_often(self) -> None:
        """At most four re-pings and one escalation of an entry, each under an id of its own."""
        for entry_id in self.entries:
            steps = sorted(step for about, step in self.stored.values() if about == entry_id)
            entry = self.core.ledger.entries.get(entry_id)
            if entry is not None and entry.state == "open":  # else one that was on its way is given up
                assert entry.bounced == len(self.entries[entry_id].bounced)
                assert sent_repings(entry) <= len(steps) <= sent_repings(entry) + entry.unsent
            steps = sorted([*steps, *self.entries[entry_id].bounced])
            assert steps == list(range(1, len(steps) + 1))
            assert len(steps) <= MAX_PINGS + 1

    @invariant()
    def closed_entries_do_nothing(self) -> None:
        closed = {i for i, e in self.entries.items() if e.state == "closed"}
        assert not closed & {action.about for action in self.core.ledger.unsent()}
        assert not closed & {pinged.id for pinged in self.core.ledger.due(Wall(self.now + 1e9))}

    @invariant()
    def memory_is_what_the_disk_gives(self) -> None:
        assert state(fold("alice", self.alice.disk)) == state(self.core)
        assert state(fold("alice", state(self.core))) == state(self.core)


LedgerMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)


TestLedger = LedgerMachine.TestCase


def test_a_silent_peer_is_reminded_four_times_and_then_reported() -> None:
    """At the deadline and 30, 60 and 120 s after each other; 240 s after the last the escalation; then peace."""
    alice, now = Machine("alice"), Wall(0.0)
    alice.execute(lambda: alice.core.open_reply("m", "bob", "ready?", now, 120.0))
    seen: list[tuple[float, str]] = []
    while (due := alice.core.next_due()) is not None:
        alice.execute(partial(alice.core.tick, due))
        (action,) = alice.core.ledger.unsent()
        seen.append((due, action.text))
        alice.execute(partial(alice.core.mark_sent, "m", due))
    assert seen == [
        (120.0, "[re-ping 1/4] ready?"),
        (150.0, "[re-ping 2/4] ready?"),
        (210.0, "[re-ping 3/4] ready?"),
        (330.0, "[re-ping 4/4] ready?"),
        (570.0, "[escalation] bob has not answered after 4 re-pings: ready?"),
    ]
    assert not alice.core.ledger.entries


def test_an_outage_over_all_deadlines_ends_in_one_re_ping_not_a_burst() -> None:
    """The pauses count from what the store has taken: late is late, but never all at once."""
    alice = Machine("alice")
    alice.execute(lambda: alice.core.open_reply("m", "bob", "ready?", Wall(0.0), 1.0))
    for now in (1.0, 100.0, 10_000.0):
        alice.execute(partial(alice.core.tick, Wall(now)))
        assert [action.id for action in alice.core.ledger.unsent()] == [derived_id("m", 1)]
    alice.execute(lambda: alice.core.mark_sent("m", Wall(10_000.0)))
    assert alice.core.next_due() == 10_030.0


def test_ids_of_re_pings_are_distinct_and_always_the_same() -> None:
    """A crash between deciding and confirming repeats the id, and nothing else has it."""
    ids = [derived_id(message, k) for message in ("a", "b", "a 1") for k in range(1, 6)]
    assert len(set(ids)) == len(ids)
    assert derived_id("a", 1) == "042a5f2e7634c4c80a75691b6b89dfe4"


@pytest.mark.parametrize("record", [Sent(id="never opened", now=1.0), Pinged(id="never opened", k=1, now=1.0)])
def test_news_of_an_unknown_entry_is_ignored(record: Sent | Pinged) -> None:
    """It may have been settled while the answer was on its way."""
    core = AgentCore("alice", KEYS)
    core.apply(record)
    assert core.mark_sent("never opened", Wall(1.0)) == []
    assert core.close_replies(["never opened"]) == []
    assert not core.ledger.entries


def test_an_answer_settles_its_entry_and_leaves_the_others_of_that_peer_open() -> None:
    """`re` names one message; it is no sign of life for another."""
    alice = Machine("alice")
    for message_id in ("a", "b"):
        alice.execute(partial(alice.core.open_reply, message_id, "bob", "x", Wall(0.0), 1.0))
    answer = decode(b"1-0", fields(from_="bob", msg="yes", ts="1", id="c", re="a"), KEYS, LIMIT)
    alice.execute(lambda: alice.core.receive([answer], "1-0", Wall(0.0)))
    assert {i: e.state for i, e in alice.core.ledger.entries.items()} == {"b": "open"}
    assert alice.core.ledger.owed_by("bob") == ["b"]
    assert alice.core.ledger.owed_by("carol") == []


def test_an_answer_to_anything_else_is_a_sign_of_life() -> None:
    """The peer is there, and writes: it is not asked again."""
    alice = Machine("alice")
    alice.execute(lambda: alice.core.open_reply("a", "bob", "x", Wall(0.0), 1.0))
    answer = decode(b"1-0", fields(from_="bob", msg="yes", ts="1", id="c", re="else"), KEYS, LIMIT)
    alice.execute(lambda: alice.core.receive([answer], "1-0", Wall(0.0)))
    assert {i: e.state for i, e in alice.core.ledger.entries.items()} == {"a": "responded"}


def test_a_peer_that_writes_while_the_escalation_is_on_its_way_has_responded() -> None:
    """The entry stays until it is settled, and does nothing more."""
    alice, now = Machine("alice"), Wall(5000.0)
    alice.execute(lambda: alice.core.open_reply("m", "bob", "x", Wall(0.0), 1.0))
    for earlier in (1000.0, 2000.0, 3000.0, 4000.0):
        alice.execute(partial(alice.core.tick, Wall(earlier)))
        alice.execute(partial(alice.core.mark_sent, "m", Wall(earlier)))
    alice.execute(lambda: alice.core.tick(now))
    plain = decode(b"1-0", fields(from_="bob", msg="wait", ts="1", id="c"), KEYS, LIMIT)
    alice.execute(lambda: alice.core.receive([plain], "1-0", now))
    alice.execute(lambda: alice.core.mark_sent("m", now))
    assert {i: e.state for i, e in alice.core.ledger.entries.items()} == {"m": "responded"}
    alice.core.apply(Pinged(id="m", k=5, now=now))
    assert alice.core.next_due() is None
    assert alice.core.ledger.unsent() == []


def test_entries_of_0_1_are_adopted() -> None:
    """They act like our own from where they stand."""
    alice = Machine("alice")
    old: Entry = entry_for("a", "bob", "x", Wall(0.0), 1.0, Ends("0-0", "0-0"))
    old.pings, old.due = 4, 500.0
    left = Moved(position=Position("5-0", 5), group="0-0", entries=[old])
    alice.execute(lambda: alice.core.move(left))
    alice.execute(lambda: alice.core.tick(Wall(500.0)))
    assert isinstance(alice.core.ledger.unsent()[0], Escalate)
