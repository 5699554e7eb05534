"""Mail that is older than an entry never answers it, in whatever order mail and entries come; newer mail does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshd.core.clock import Wall
from meshd.core.effects import Effect
from meshd.core.ledger import MAX_ENTRIES, Ends
from meshd.core.message import Malformed, Message, decode, entry_key
from meshd.core.records import Entry, Moved, Position
from tests.core.model import KEYS, LIMIT, Machine, Stream, fields, fold, state

IDS = [f"q{k}" for k in range(4)]  # few: they are used again, and older mail names them
peers = st.sampled_from(["bob", "carol"])
# A sender's clock says what it likes: hours off, or nothing.
clocks = st.sampled_from(["0", "1", "1699990000", "1700000000.5", "1700036000", "999999999999", "soon"])


class Mail(NamedTuple):
    """What was written: when, counted over all that happens, and what it says."""

    written: int
    sender: str
    re: str | None
    kind: str


class Asked(NamedTuple):
    """An entry that is open: from when on mail answers it, and whom it asks."""

    since: int
    to: str


class OlderMail(RuleBasedStateMachine):
    """Peers write, an agent asks, and its daemon reads when it comes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.alice = Machine("alice")
        self.alice.execute(lambda: self.alice.core.move(Moved(position=Position(), group="0-0")))
        self.own, self.group = Stream(), Stream()
        self.steps = itertools.count()
        self.written: dict[str, Mail] = {}
        self.received: set[str] = set()
        self.open: dict[str, Asked] = {}
        self.responded: set[str] = set()
        self.restores: list[Callable[[], list[str]]] = []

    # --- peers ---

    @rule(sender=peers, re=st.none() | st.sampled_from(IDS), everyone=st.booleans(), ts=clocks)
    def somebody_writes(self, sender: str, re: str | None, everyone: bool, ts: str) -> None:
        step = next(self.steps)
        message_id = f"m{step}"
        self.written[message_id] = Mail(step, sender, re, "broadcast" if everyone else "direct")
        flat = fields(from_=sender, msg="x", ts=ts, id=message_id)
        flat += fields(re=re) if re is not None else []
        flat += fields(to="*") if everyone else []
        (self.group if everyone else self.own).add(flat, maxlen=1000)

    # --- the agent ---

    @rule(message_id=st.sampled_from(IDS), to=peers, known=st.booleans())
    def ask(self, message_id: str, to: str, known: bool) -> None:
        """The store says where the streams end, or says nothing: then what was not received counts as newer."""
        core = self.alice.core
        if message_id in core.ledger.entries:
            return
        ends = Ends(self.own.last, self.group.last) if known else None
        self.alice.execute(lambda: core.open_reply(message_id, to, "?", Wall(1.0), 1e9, ends))
        self.open[message_id] = Asked(next(self.steps) if known else -1, to)
        self.responded.discard(message_id)

    @rule(message_id=st.sampled_from(IDS))
    def settle(self, message_id: str) -> None:
        self.alice.execute(lambda: self.alice.core.close_replies([message_id]))
        self.open.pop(message_id, None)

    # --- its daemon ---

    @rule(count=st.integers(1, 5))
    def read_own(self, count: int) -> None:
        self._read(self.own, count)

    @rule(count=st.integers(1, 5))
    def read_group(self, count: int) -> None:
        self._read(self.group, count)

    def _read(self, stream: Stream, count: int) -> None:
        core = self.alice.core
        cursor = core.inbox.position.at if stream is self.own else core.inbox.group or "0-0"
        raw = stream.read(cursor, count)
        if not raw:
            return
        mail = [decode(at.encode(), flat, KEYS, LIMIT) for at, flat in raw]
        last = raw[-1][0]

        def receive() -> list[Effect]:
            if stream is self.own:
                return core.receive(mail, last, Wall(1.0))
            return core.receive_group([m for m in mail if isinstance(m, Message | Malformed)], last, Wall(1.0))

        self.alice.execute(receive)
        for message in mail:
            assert isinstance(message, Message)
            self._came(message.id)

    def _came(self, message_id: str) -> None:
        """What the contract says of one message that is received for the first time."""
        if message_id in self.received:
            return
        self.received.add(message_id)
        mail = self.written[message_id]
        newer = {i: asked for i, asked in self.open.items() if asked.since < mail.written}
        if mail.re in newer:
            del self.open[mail.re]
        elif mail.kind == "direct":
            self.responded |= {i for i, asked in newer.items() if asked.to == mail.sender}

    @rule()
    def restart(self) -> None:
        self.alice.restart()

    @rule()
    def compact(self) -> None:
        self.alice.compact()

    # --- the store ---

    @rule()
    def copy(self) -> None:
        self.restores = [self.own.save()]

    @rule()
    def lose_the_end(self) -> None:
        """As a failover does. The daemon finds it when it asks next, and what is written afterwards is new."""
        for restore in self.restores:
            restore()
        self.restores = []
        if self.alice.core.inbox.went_back(self.own.info):
            self.alice.execute(lambda: self.alice.core.receive([], "0-0", Wall(1.0), self.own.info))

    # --- what must hold ---

    @invariant()
    def as_the_contract_says(self) -> None:
        entries = self.alice.core.ledger.entries
        assert set(entries) == set(self.open)
        assert {i for i, entry in entries.items() if entry.state == "responded"} == self.responded & set(self.open)

    @invariant()
    def memory_is_what_the_disk_gives(self) -> None:
        assert state(fold("alice", self.alice.disk)) == state(self.alice.core)


OlderMail.TestCase.settings = settings(max_examples=200, stateful_step_count=30)


TestOlderMail = OlderMail.TestCase


@pytest.fixture
def alice() -> Machine:
    """An agent that has received what stood up to 10-0."""
    made = Machine("alice")
    made.execute(lambda: made.core.move(Moved(position=Position("10-0", 1), group="0-0")))
    return made


def come(alice: Machine, at: str, **values: str) -> None:
    message = decode(at.encode(), fields(from_="bob", msg="x", id=f"m{at}", **values), KEYS, LIMIT)
    alice.execute(lambda: alice.core.receive([message], at, Wall(0.0)))


def states(alice: Machine) -> dict[str, str]:
    return {entry.id: entry.state for entry in alice.core.ledger.entries.values()}


@pytest.mark.parametrize("ts", ["1", "5000", "999999999999"])
def test_what_stood_in_the_store_before_the_question_is_no_answer(alice: Machine, ts: str) -> None:
    """It is received later all the same, and its sender's clock says anything."""
    alice.execute(lambda: alice.core.open_reply("q", "bob", "?", Wall(0.0), 1.0, Ends("20-0", "0-0")))
    come(alice, "20-0", ts=ts)
    assert states(alice) == {"q": "open"}
    assert alice.core.next_due() == 1.0
    come(alice, "20-1", ts=ts)
    assert states(alice) == {"q": "responded"}


def test_an_id_that_was_used_before_is_not_answered_by_what_answered_it_then(alice: Machine) -> None:
    alice.execute(lambda: alice.core.open_reply("q", "bob", "?", Wall(0.0), 1.0, Ends("20-0", "0-0")))
    come(alice, "20-0", ts="1", re="q")
    assert states(alice) == {"q": "open"}
    come(alice, "21-0", ts="1", re="q")
    assert states(alice) == {}


def test_what_is_not_known_counts_as_newer_from_what_was_received_on(alice: Machine) -> None:
    """The store did not say where the stream ends."""
    alice.execute(lambda: alice.core.open_reply("q", "bob", "?", Wall(0.0), 1.0))
    assert alice.core.ledger.entries["q"].after == "10-0"
    come(alice, "11-0", ts="1")
    assert states(alice) == {"q": "responded"}


def test_after_the_store_and_its_clock_went_back_an_answer_is_still_one(alice: Machine) -> None:
    """A replica whose clock is behind gives ids that are lower than those which stood there before."""
    alice.execute(lambda: alice.core.open_reply("q", "bob", "?", Wall(0.0), 1.0, Ends("20000-0", "0-0")))
    stream = Stream()
    stream.last, stream.added = "5-0", 1
    alice.execute(lambda: alice.core.receive([], "0-0", Wall(0.0), stream.info))
    alice.restart()
    come(alice, "5-0", ts="1")
    assert states(alice) == {"q": "open"}
    come(alice, "6-0", ts="1")
    assert states(alice) == {"q": "responded"}


def test_entries_of_an_older_journal_are_answered_as_they_were(alice: Machine) -> None:
    """It did not say where the streams ended: all that is received is newer."""
    old = Entry(id="q", to="bob", text="?", sent=0.0, deadline=1.0, due=1.0)
    alice.execute(partial(alice.core.move, Moved(position=Position("10-0", 1), entries=[old])))
    come(alice, "11-0", ts="1")
    assert states(alice) == {"q": "responded"}
    assert entry_key(old.after) == (0, 0)


def test_an_escalated_entry_stays_until_it_is_settled(alice: Machine) -> None:
    """It has nothing more to do, and a sign of life does not make it anything else."""
    old = Entry(id="q", to="bob", text="?", sent=0.0, deadline=1.0, due=0.0, state="escalated", pings=4)
    alice.execute(partial(alice.core.move, Moved(position=Position("10-0", 1), entries=[old])))
    alice.compact()
    alice.restart()
    assert alice.core.next_due() is None
    assert not alice.core.ledger.due(Wall(1e12))
    come(alice, "11-0", ts="1")
    assert states(alice) == {"q": "escalated"}
    come(alice, "12-0", ts="1", re="q")
    assert states(alice) == {}


def test_escalated_entries_keep_no_new_one_from_being_opened(alice: Machine) -> None:
    """0.1 never closed them by itself: there may be as many as are taken over."""
    one = Entry(id="q", to="bob", text="?", sent=0.0, deadline=1.0, due=0.0, state="escalated")
    old = [msgspec.structs.replace(one, id=f"q{k}") for k in range(MAX_ENTRIES)]
    alice.execute(partial(alice.core.move, Moved(position=Position("10-0", 1), entries=old)))
    alice.execute(lambda: alice.core.open_reply("new", "bob", "?", Wall(0.0), 1.0))
    assert states(alice)["new"] == "open"


def test_what_0_1_left_is_taken_once(alice: Machine) -> None:
    """An entry that is there already is further than what 0.1 knew of it."""
    old = Entry(id="q", to="bob", text="?", sent=0.0, deadline=1.0, due=1.0)
    left = Moved(position=Position("10-0", 1), entries=[old])
    alice.execute(partial(alice.core.move, left))
    alice.execute(lambda: alice.core.tick(Wall(5.0)))
    alice.execute(partial(alice.core.move, Moved(position=Position("10-0", 1), entries=[old])))
    assert alice.core.ledger.entries["q"].pings == 1
