"""An agent's inbox through random histories: what comes, what is read, what is lost, with a crash anywhere."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshd.core import records
from meshd.core.agent import AgentCore
from meshd.core.clock import Stored, Wall
from meshd.core.effects import CheckLease, Effect, Pong, Wake
from meshd.core.inbox import StreamInfo
from meshd.core.ledger import MAX_ENTRIES, derived_id
from meshd.core.message import Malformed, Message, Ping, decode, entry_key
from meshd.core.queue import Bounds
from meshd.core.records import Moved, Position
from meshd.core.seen import SEEN_WINDOW
from meshd.errors import Full
from tests.core.model import KEYS, LIMIT, MAXLEN, NOW, Fields, Machine, Stream, fields, fold, state

crashes = st.none() | st.integers(0, 5)
FEW = Bounds(messages=2, chunks=2)
senders = st.sampled_from(["alice", "carol"])


class InboxMachine(RuleBasedStateMachine):
    """Sends of every kind, trimming, crashes, hand-overs and compactions; the store never goes back.

    Of unread mail but a few messages are kept in memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stream = Stream()
        self.bob = Machine(bounds=FEW)
        self.ids = map("m{}".format, itertools.count())
        self.counts: Counter[str] = Counter()
        self.sent: list[str] = []  # every id that a message was sent under
        self.reminders: dict[str, str] = {}  # re-ping id -> the id it is about
        self.entry_of: dict[str, str] = {}  # entry id -> message id
        self.read: set[str] = set()
        self.lost: list[str] = []  # entries that were taken before they were received

    # --- the store's side ---

    def add(self, flat: Fields, message_id: str | None = None) -> None:
        self.gone(self.stream.add(flat))
        if message_id is not None:
            self.entry_of[self.stream.last] = message_id

    def gone(self, entries: list[str]) -> None:
        """What the durable cursor has not passed is lost."""
        position = entry_key(fold("bob", self.bob.disk).inbox.position.at)
        self.lost += [at for at in entries if entry_key(at) > position]

    def ours(self, sender: str) -> dict[str, str]:
        self.counts[sender] += 1
        return {"sid": "5e", "n": str(self.counts[sender])}

    @rule(sender=senders, number=st.integers(1, 2 * MAXLEN))
    def send(self, sender: str, number: int) -> None:
        for _ in range(number if number % 4 == 0 else 1):
            self.sent.append(next(self.ids))
            flat = fields(from_=sender, msg="hi", ts="1", id=self.sent[-1], **self.ours(sender))
            self.add(flat, self.sent[-1])

    @rule(with_id=st.booleans())
    def send_as_0_1(self, with_id: bool) -> None:
        """An old program counts nothing, and its ids may be missing."""
        if with_id:
            self.sent.append(next(self.ids))
            self.add(fields(from_="old", msg="hi", ts="1", id=self.sent[-1]), self.sent[-1])
        else:
            self.add(fields(from_="old", msg="hi", ts="1"))
            self.sent.append(self.stream.last)
            self.entry_of[self.stream.last] = self.stream.last

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), sender=senders)
    def send_again(self, data: st.DataObject, sender: str) -> None:
        """The sender did not learn the outcome, and the store has forgotten the id."""
        again = data.draw(st.sampled_from(self.sent))
        self.add(fields(from_=sender, msg="hi", ts="1", id=again, **self.ours(sender)), again)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), sender=senders, k=st.integers(1, 4))
    def remind(self, data: st.DataObject, sender: str, k: int) -> None:
        about = data.draw(st.sampled_from(self.sent))
        again = derived_id(about, k)
        self.reminders[again] = about
        self.add(fields(from_=sender, msg="?", ts="1", id=again, about=about, **self.ours(sender)), again)

    @rule(what=st.sampled_from(["ping", "no text", "no sender", "bad text", "too long"]), counted=st.booleans())
    def other_entry(self, what: str, counted: bool) -> None:
        flat = {
            "ping": fields(from_="alice", msg_type="ping", nonce="0" * 32, ts=str(NOW)),
            "no text": fields(from_="alice", ts="1"),
            "no sender": fields(msg="hi", ts="1"),
            "bad text": fields(from_="alice", msg=b"\xff", ts="1"),
            "too long": fields(from_="alice", msg="x" * (LIMIT + 1), ts="1"),
        }[what]
        if counted and what not in ("ping", "no sender"):
            flat += fields(**self.ours("alice"))
        self.add(flat)

    # --- the agent's side ---

    @rule(crash=crashes)
    def receive(self, crash: int | None) -> None:
        self.bob.read(self.stream, NOW, crash)

    @rule(crash=crashes)
    def spill(self, crash: int | None) -> None:
        self.bob.spill(crash)

    @rule(limit=st.integers(1, 20), fate=st.sampled_from(["confirmed", "died", "crashed"]), crash=crashes)
    def hand_over(self, limit: int, fate: str, crash: int | None) -> None:
        self.bob.bring(limit, crash=crash)
        ids = [message.id for message in self.bob.core.inbox.take(limit, 1 << 20)]
        if fate == "confirmed":
            self.confirm(ids, None)
        elif fate == "died":
            self.bob.core.inbox.release(ids)
        else:
            self.bob.restart()

    @rule(data=st.data(), crash=crashes)
    def hand_over_some(self, data: st.DataObject, crash: int | None) -> None:
        """Confirmed out of order, as when two clients share a name."""
        unread = list(self.bob.core.inbox.unread)
        self.confirm(data.draw(st.lists(st.sampled_from(unread), unique=True)) if unread else [], crash)

    def confirm(self, ids: list[str], crash: int | None) -> None:
        came_through = self.bob.execute(lambda: self.bob.core.mark_read(ids), crash)
        if came_through:
            self.read |= set(ids)
        else:  # a confirmation that was not on the disk when the process died did not happen
            self.read |= {i for i in ids if i not in self.bob.unread}

    @rule()
    def restart(self) -> None:
        self.bob.restart()

    @rule()
    def compact(self) -> None:
        self.bob.compact()

    # --- what must hold ---

    @rule()
    def all_is_there_once_caught_up(self) -> None:
        """Every id that is in the stream is unread or read; the losses are those that trimming took.

        Of those some may be there again with an older copy of the store, and are not looked for: they were told.
        """
        self.bob.catch_up(self.stream, NOW)
        inbox, unread = self.bob.core.inbox, self.bob.unread
        missing = [
            at
            for at, _ in self.stream.entries
            if (message_id := self.entry_of.get(at)) and message_id not in unread and message_id not in inbox.seen
        ]
        assert set(missing) <= set(self.lost)
        assert len(missing) <= inbox.losses.total
        self.check_lost()

    def check_lost(self) -> None:
        assert self.bob.core.inbox.losses.total == len(self.lost)

    @invariant()
    def nothing_read_comes_back(self) -> None:
        assert not self.read & set(self.bob.unread)

    @invariant()
    def as_many_are_unread_as_are_told(self) -> None:
        assert len(self.bob.core.inbox.unread) == len(self.bob.unread)

    @invariant()
    def in_the_order_of_the_stream(self) -> None:
        """The inbox holds messages in the order in which they were stored, so each sender's in its own."""
        unread = self.bob.unread.values()
        # What was gone and came back with an older copy of the store comes late, which is better than never.
        stored = [entry_key(message.at) for message in unread if message.at not in self.lost]
        assert stored == sorted(set(stored))

    @invariant()
    def reminders_of_unread_mail_are_no_mail(self) -> None:
        """No re-ping that came while its message was unread is an entry beside it, unless somebody else sent it."""
        unread: dict[str, str] = {}
        for message_id, message in self.bob.unread.items():
            assert unread.get(self.reminders.get(message_id, "")) != message.sender
            unread[message_id] = message.sender

    @invariant()
    def memory_is_what_the_disk_gives(self) -> None:
        assert state(fold("bob", self.bob.disk, FEW)) == state(self.bob.core)

    @invariant()
    def a_compacted_journal_gives_the_same_state(self) -> None:
        assert state(fold("bob", state(self.bob.core), FEW)) == state(self.bob.core)


class RollbackMachine(InboxMachine):
    """The same with a store that loses its end, or everything."""

    def __init__(self) -> None:
        super().__init__()
        self.checkpoint: Callable[[], list[str]] = self.stream.save()

    @rule()
    def replicate(self) -> None:
        self.checkpoint = self.stream.save()

    @rule()
    def fail_over(self) -> None:
        self.gone(self.checkpoint())

    @rule()
    def flush(self) -> None:
        self.gone([at for at, _ in self.stream.entries])
        self.stream.entries, self.stream.added, self.stream.last = [], 0, "0-0"
        self.checkpoint = self.stream.save()  # its replicas are flushed as well

    def check_lost(self) -> None:
        """Fewer may be counted, as an old program's messages leave no trace; never more than were taken."""
        assert self.bob.core.inbox.losses.total <= len(self.lost)


InboxMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
RollbackMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30)


def test_what_was_trimmed_and_comes_back_with_an_older_copy_was_told_as_lost() -> None:
    """The copy ends behind what was read since, so that nothing tells of it."""
    stream, bob = Stream(), Machine()
    for n in range(MAXLEN):
        stream.add(fields(from_="alice", msg="x", ts="1", id=f"m{n}", sid="5e", n=str(n + 1)))
    restore = stream.save()
    stream.add(fields(from_="alice", msg="x", ts="1", id="last", sid="5e", n=str(MAXLEN + 1)))
    bob.read(stream, NOW)
    assert bob.core.inbox.losses.total == 1
    restore()
    bob.catch_up(stream, NOW)
    assert list(bob.core.inbox.unread) == [f"m{n}" for n in range(1, MAXLEN)]
    assert bob.core.inbox.losses.total == 1


TestInbox = InboxMachine.TestCase


TestInboxOfAStoreThatGoesBack = RollbackMachine.TestCase


@settings(max_examples=60)
@given(
    history=st.lists(st.sampled_from(["alice", "carol", "read", "replicate", "fail over"]), max_size=40),
)
def test_what_a_rollback_took_is_counted_exactly_by_the_senders_counts(history: list[str]) -> None:
    """Senders that were met before and write again leave no doubt: LOST is the number of messages that are gone."""
    stream, bob = Stream(), Machine()
    counts: Counter[str] = Counter()
    received: set[tuple[str, int]] = set()

    def send(sender: str) -> None:
        counts[sender] += 1
        flat = fields(from_=sender, msg="x", ts="1", id=f"{sender}{counts[sender]}", sid="5e", n=str(counts[sender]))
        stream.add(flat, maxlen=1000)

    def read() -> None:
        bob.catch_up(stream, NOW)
        received.update((message.sender, message.n) for message in bob.core.inbox.unread.values())

    for sender in ("alice", "carol"):
        send(sender)
    read()
    restore = stream.save()
    for what in history:
        if what == "read":
            read()
        elif what == "replicate":
            restore = stream.save()
        elif what == "fail over":
            restore()
        else:
            send(what)
    for sender in ("alice", "carol"):
        send(sender)
    read()
    assert bob.core.inbox.losses.total == sum(counts.values()) - len(received)


@settings(max_examples=60)
@given(history=st.lists(st.sampled_from(["alice", "carol", "read", "trim", "flush"]), max_size=40))
def test_a_trim_explains_no_loss_that_comes_after_it(history: list[str]) -> None:
    """Once its senders have written again, what a flush takes is counted exactly, whoever's mail was trimmed."""
    stream, bob = Stream(), Machine()
    counts: Counter[str] = Counter()
    received: set[tuple[str, int]] = set()
    raw = 0

    def send(sender: str) -> None:
        counts[sender] += 1
        flat = fields(from_=sender, msg="x", ts="1", id=f"{sender}{counts[sender]}", sid="5e", n=str(counts[sender]))
        stream.add(flat, maxlen=1000)

    def read() -> None:
        bob.catch_up(stream, NOW)
        received.update((message.sender, message.n) for message in bob.core.inbox.unread.values() if message.sid)

    def all_write() -> None:
        for sender in ("alice", "carol"):
            send(sender)
        read()

    all_write()
    for what in history:
        if what == "read":
            read()
        elif what == "flush":
            stream.entries, stream.added, stream.last = [], 0, "0-0"
            read()
            all_write()
        elif what == "trim":
            read()
            send("alice")
            for _ in range(4):
                stream.add(fields(from_="old", msg="x", ts="1"), maxlen=2)
            raw += 2
            all_write()
        else:
            send(what)
    all_write()
    assert bob.core.inbox.losses.total == raw + sum(counts.values()) - len(received)


@settings(max_examples=60)
@given(data=st.data(), trims=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=5))
def test_trims_explain_the_gaps_of_all_senders_together(data: st.DataObject, trims: list[tuple[int, int, int]]) -> None:
    """In whatever order the senders write again, what was trimmed is told once, and of a loss beyond that no less."""
    stream, bob = Stream(), Machine()
    counts: Counter[str] = Counter()
    everybody = ("alice", "carol", "dave")

    def send(sender: str) -> None:
        counts[sender] += 1
        flat = fields(from_=sender, msg="x", ts="1", id=f"{sender}{counts[sender]}", sid="5e", n=str(counts[sender]))
        stream.add(flat, maxlen=1000)

    for sender in everybody:
        send(sender)
    bob.catch_up(stream, NOW)
    gone = 0
    for numbers in trims:
        for sender, number in zip(everybody, numbers, strict=True):
            for _ in range(number):
                send(sender)
        gone += sum(numbers)
        stream.entries.clear()
        bob.catch_up(stream, NOW)
        if data.draw(st.booleans()):
            send(data.draw(st.sampled_from(everybody)))
            bob.catch_up(stream, NOW)
    beyond = data.draw(st.integers(0, 3))
    counts["alice"] += beyond  # taken without a trace in the stream's counts
    for sender in data.draw(st.permutations(everybody)):
        send(sender)
        bob.catch_up(stream, NOW)
    assert bob.core.inbox.losses.total == gone + beyond


def test_the_credit_of_an_older_journal_is_everybody_s_until_they_write() -> None:
    """It did not note whose the trimmed entries may have been."""
    for snapshot in (True, False):
        core = AgentCore("bob", KEYS)
        old = {"explained": 3, "counts": {"5e alice ": 1, "5e carol ": 1, "5e carol *": 1}}
        if snapshot:
            core.apply(records.Snapshot(position=Position(), **old))  # type: ignore[arg-type]
        else:
            core.apply(records.Batch(counts=old["counts"]))  # type: ignore[arg-type]
            core.apply(records.Batch(explained=3))
        receive(core, text("a", sid="5e", n="4"))
        assert core.inbox.losses.total == 0
        receive(core, text("b", sid="5e", n="6"))
        assert core.inbox.losses.total == 1
        receive(core, fields(from_="carol", msg="hi", ts="1", id="c", sid="5e", n="6"))
        assert core.inbox.losses.total == 1 + 3


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=8), st.booleans())
def test_a_trimmed_message_is_counted_once_whoever_counts(bursts: list[tuple[int, bool]], counted: bool) -> None:
    """The store's arithmetic and the sender's counter see the same loss; it is counted once."""
    stream, bob = Stream(), Machine()
    lost = n = 0
    for number, then_read in bursts:
        for _ in range(number):
            n += 1
            extra = {"sid": "5e", "n": str(n)} if counted else {}
            taken = stream.add(fields(from_="alice", msg="x", ts="1", id=f"m{n}", **extra))
            lost += sum(entry_key(at) > entry_key(bob.core.inbox.position.at) for at in taken)
        if then_read:
            bob.read(stream, NOW)
    bob.catch_up(stream, NOW)
    assert bob.core.inbox.losses.total == lost
    told = [line for line in bob.lines if line.startswith("⚠ LOST")]
    assert sum(int(line.split()[2]) for line in told) == lost


def receive(core: AgentCore, *entries: Fields, info: StreamInfo | None = None) -> list[str]:
    """Apply a read of these entries to the core; the types of the effects, in order."""
    start = entry_key(core.inbox.position.at)[0]
    decoded = [decode(f"{start + k}-0".encode(), flat, KEYS, LIMIT) for k, flat in enumerate(entries, 1)]
    effects = core.receive(decoded, f"{start + len(entries)}-0", NOW, info)
    commit(core, effects)
    return [type(effect).__name__ for effect in effects]


def commit(core: AgentCore, effects: list[Effect]) -> None:
    for effect in effects:
        for record in getattr(effect, "records", ()):
            core.apply(record)


def text(message_id: str, **more: str) -> Fields:
    return fields(from_="alice", msg="hi", ts="1", id=message_id, **more)


def test_a_bad_entry_does_not_stop_those_behind_it() -> None:
    """It is kept aside and told of, once, and the next message is delivered in the same step."""
    core = AgentCore("bob", KEYS)
    assert receive(core, fields(from_="alice", msg=b"\xff"), text("a")) == ["Quarantine", "Commit", "Wake"]
    assert list(core.inbox.unread) == ["a"]
    assert "q:1-0" in core.inbox.seen


@pytest.mark.parametrize("spoilt", [{"msg": b"\xff"}, {"msg": "x" * (LIMIT + 1)}, {}])
@pytest.mark.parametrize("group", [False, True])
def test_a_quarantined_entry_is_not_lost_as_well(spoilt: dict[str, str | bytes], group: bool) -> None:
    """Its sender's count is read, on either stream; what is missing before it is told."""
    core = AgentCore("bob", KEYS)

    def entry(n: int, content: dict[str, str | bytes]) -> Fields:
        to = {"to": "*"} if group else {}
        return fields(from_="alice", ts="1", id=f"m{n}", sid="5e", n=str(n), **to, **content)

    entries = [entry(1, {"msg": "hi"}), entry(4, spoilt), entry(5, {"msg": "hi"})]
    if group:
        decoded = [decode(f"{k}-0".encode(), flat, KEYS, LIMIT) for k, flat in enumerate(entries, 1)]
        news = [entry for entry in decoded if not isinstance(entry, Ping)]
        for effect in core.receive_group(news, "3-0", NOW):
            for record in getattr(effect, "records", ()):
                core.apply(record)
    else:
        receive(core, *entries)
    assert list(core.inbox.unread) == ["m1", "m5"]
    assert core.inbox.losses.total == 2


def test_a_quarantined_entry_is_not_quarantined_again() -> None:
    """A stream that is read again from its start brings the bad entry again, without a second line."""
    bob, stream = Machine(), Stream()
    stream.add(fields(from_="alice"))
    stream.add(text("a"))
    restore = stream.save()
    stream.add(text("b"))
    bob.catch_up(stream, NOW)
    restore()
    bob.catch_up(stream, NOW)
    assert len(bob.quarantined) == 1
    assert len([line for line in bob.lines if "QUARANTINED" in line]) == 1


def test_a_bad_broadcast_and_a_bad_message_of_the_same_millisecond_are_both_told() -> None:
    """Two streams may hold entries of one id."""
    core = AgentCore("bob", KEYS)
    receive(core, fields(from_="alice", ts="1"))
    effects = core.receive_group([Malformed("1-0", "no text", ())], "1-0", NOW)
    assert [type(effect).__name__ for effect in effects] == ["Quarantine", "Commit"]


def test_a_re_ping_of_an_unread_message_wakes_and_adds_nothing() -> None:
    """Of one that was read, it is a message like any other: the text must reach the agent again."""
    core = AgentCore("bob", KEYS)
    receive(core, text("a"))
    assert receive(core, text("r1", about="a")) == ["Commit", "Wake"]
    assert list(core.inbox.unread) == ["a"]
    for record in core.mark_read(["a"])[0].records:  # type: ignore[union-attr]
        core.apply(record)
    receive(core, text("r2", about="a"))
    assert [(m.id, m.kind) for m in core.inbox.unread.values()] == [("r2", "reping")]


def test_a_re_ping_in_the_same_read_as_its_message_adds_nothing() -> None:
    """An agent that was away finds message and re-pings together."""
    core = AgentCore("bob", KEYS)
    receive(core, text("a"), text("r1", about="a"), text("r2", about="a"))
    assert list(core.inbox.unread) == ["a"]


def test_a_message_about_another_sender_s_is_a_message() -> None:
    """Only whoever sent a message can remind of it; in the same read as well as later."""
    core = AgentCore("bob", KEYS)
    foreign = {"from_": "mallory", "msg": "important", "ts": "1", "about": "a"}
    receive(core, text("a"), fields(**foreign, id="x1"))
    receive(core, fields(**foreign, id="x2"))
    assert list(core.inbox.unread) == ["a", "x1", "x2"]


def test_an_id_that_comes_twice_in_one_read_is_one_message() -> None:
    """One entry, one line, and the place of the first."""
    bob, stream = Machine(), Stream()
    for message_id in ("a", "b", "a"):
        stream.add(text(message_id))
    bob.catch_up(stream, NOW)
    assert [(m.id, m.index) for m in bob.core.inbox.unread.values()] == [("a", 1), ("b", 2)]
    assert len(bob.lines) == 2


def test_what_was_received_is_not_lost_when_a_stream_that_went_back_is_trimmed() -> None:
    """Between finding out and reading again: only what never came is a loss."""
    bob, stream = Machine(), Stream()
    for k in range(8):
        stream.add(text(f"m{k}"))
    restore = stream.save()
    stream.add(text("taken"))
    bob.catch_up(stream, NOW)
    restore()
    bob.probe = True
    bob.read(stream, NOW)
    assert bob.lines[-1].startswith("⚠ the store went back")
    for k in range(MAXLEN):
        stream.add(text(f"n{k}"))
    bob.catch_up(stream, NOW)
    assert bob.core.inbox.losses.total == 0
    stream.add(text("last"))
    bob.catch_up(stream, NOW)
    assert bob.core.inbox.losses.total == 0
    assert len(bob.core.inbox.unread) == 8 + 1 + MAXLEN + 1


def test_a_read_far_ahead_is_remembered_where_the_name_was_before() -> None:
    """Read elsewhere above a message that is unread here too: it does not come again."""
    here, there, stream = Machine(), Machine(), Stream()
    stream.add(text("a"))
    here.catch_up(stream, NOW)
    there.execute(lambda: there.core.move(here.core.read_record()))
    stream.add(text("b"))
    there.catch_up(stream, NOW)
    there.execute(lambda: there.core.mark_read(["b"]))
    here.execute(lambda: here.core.move(there.core.read_record()))
    here.catch_up(stream, NOW)
    assert list(here.core.inbox.unread) == ["a"]


def test_what_is_trimmed_where_a_name_goes_on_is_told() -> None:
    """The counts of the stream go with the name, those of its senders do not."""
    here, there, stream = Machine(), Machine(), Stream()

    def send(n: int) -> None:
        stream.add(text(f"m{n}", sid="5e", n=str(n)))

    send(1)
    here.catch_up(stream, NOW)
    here.execute(lambda: here.core.mark_read(["m1"]))
    there.execute(lambda: there.core.move(here.core.read_record()))
    send(2)
    there.catch_up(stream, NOW)
    there.execute(lambda: there.core.mark_read(["m2"]))
    for n in (3, 4, 5):
        send(n)
    del stream.entries[:-1]
    here.execute(lambda: here.core.move(there.core.read_record()))
    here.catch_up(stream, NOW)
    assert (list(here.core.inbox.unread), here.core.inbox.losses.total) == (["m5"], 2)


def test_pings_are_answered_and_old_ones_are_not() -> None:
    """Whoever sent a ping ten minutes ago waits no more; one that tells of a takeover asks for the lease."""
    core = AgentCore("bob", KEYS)
    ping = {"from_": "alice", "msg_type": "ping", "nonce": "a" * 32}
    at = [f"{1000 * (int(NOW) - 601)}-0", f"{1000 * int(NOW)}-0", f"{1000 * int(NOW)}-1"]
    decoded = [
        decode(at[0].encode(), fields(**ping, ts=str(NOW - 601)), KEYS, LIMIT),
        decode(at[1].encode(), fields(**ping, ts=str(NOW)), KEYS, LIMIT),
        decode(at[2].encode(), fields(**ping, ts=str(NOW), moved="x"), KEYS, LIMIT),
    ]
    effects = core.receive(decoded, at[2], NOW, stored=Stored(NOW))
    assert [type(effect) for effect in effects[1:]] == [Pong, CheckLease]


@pytest.mark.parametrize("ours", [-1e5, -601, 601, 1e5], ids="our clock {} s ahead".format)
@pytest.mark.parametrize("theirs", [-1e5, -601, 0, 601, 1e5], ids="the sender's {}".format)
@pytest.mark.parametrize("age", [0, 599, 601], ids="sent {} s ago".format)
def test_a_ping_is_as_old_as_the_store_says(ours: float, theirs: float, age: int) -> None:
    """Whatever the clocks of the two machines show."""
    core = AgentCore("bob", KEYS)
    at = f"{1000 * (int(NOW) - age)}-0"
    sent = str(NOW - age + theirs)
    ping = decode(at.encode(), fields(from_="alice", msg_type="ping", nonce="a" * 32, ts=sent), KEYS, LIMIT)
    effects = core.receive([ping], at, Wall(NOW + ours), stored=Stored(NOW))
    assert [type(effect) for effect in effects[1:]] == ([Pong] if age < 600 else [])


def test_the_wake_names_the_senders_of_what_is_new() -> None:
    """Duplicates wake nobody."""
    core = AgentCore("bob", KEYS)
    decoded = [decode(b"1-0", text("a"), KEYS, LIMIT)]
    assert Wake(frozenset({"alice"})) in core.receive(decoded, "1-0", NOW)
    receive(core, text("a"))
    assert receive(core, text("a")) == ["Commit"]


def test_a_broadcast_on_a_private_stream_is_a_private_message() -> None:
    """Broadcasts are on no private stream; one that says so must not move the group's reading place."""
    core = AgentCore("bob", KEYS)
    receive(core, text("a", to="*"))
    (message,) = core.inbox.unread.values()
    assert (message.id, message.kind) == ("a", "direct")
    assert core.inbox.read_group() is None
    assert core.inbox.read_position() == Position("0-18446744073709551615", 0)


def test_one_on_a_private_stream_does_not_take_a_broadcast_s_id() -> None:
    """Neither has an id, and their entries have the same one."""
    core = AgentCore("bob", KEYS)
    flat = fields(from_="alice", msg="hi", ts="1", to="*")
    receive(core, flat)
    entry = decode(b"1-0", flat, KEYS, LIMIT)
    assert isinstance(entry, Message)
    for effect in core.receive_group([entry], "1-0", NOW):
        for record in getattr(effect, "records", ()):
            core.apply(record)
    assert [message.kind for message in core.inbox.unread.values()] == ["direct", "broadcast"]


def group_entry(at: int, message_id: str, **more: str) -> Message:
    entry = decode(f"{at}-0".encode(), text(message_id, to="*", **more), KEYS, LIMIT)
    assert isinstance(entry, Message)
    return entry


def test_broadcasts_are_taken_once_and_ones_own_are_not() -> None:
    """Entries up to the group cursor are old; what this name said itself is not mail for it."""
    bob = Machine("alice")
    bob.execute(lambda: bob.core.receive_group([group_entry(1, "own")], "1-0", NOW))
    assert not bob.disk
    bob = Machine()
    news = [group_entry(1, "a"), group_entry(2, "b")]
    bob.execute(lambda: bob.core.receive_group(news, "2-0", NOW))
    bob.execute(lambda: bob.core.receive_group([*news, group_entry(3, "c")], "3-0", NOW))
    assert list(bob.core.inbox.unread) == ["a", "b", "c"]
    assert len(bob.lines) == 3


def test_a_loss_on_the_private_stream_does_not_hide_one_of_broadcasts() -> None:
    """What trimming took from the private stream explains no gap in the group."""
    core = AgentCore("bob", KEYS)
    receive(core, text("z"), info=StreamInfo(1, 6, "1-0"))
    assert core.inbox.losses.total == 5
    for at, n in ((1, 1), (2, 5)):
        commit(core, core.receive_group([group_entry(at, f"m{n}", sid="5e", n=str(n))], f"{at}-0", NOW))
    assert core.inbox.losses.total == 5 + 3


def test_more_ids_are_remembered_than_a_stream_holds() -> None:
    """The window drops the oldest first, and a stream that is read again is all inside it."""
    core = AgentCore("bob", KEYS)
    for k in range(SEEN_WINDOW + 10):
        receive(core, text(f"m{k}"))
        commit(core, core.mark_read([f"m{k}"]))
    assert list(core.inbox.seen) == [f"m{k}" for k in range(10, SEEN_WINDOW + 10)]


def test_broadcasts_are_remembered_however_much_private_mail_was_read_since() -> None:
    """And the other way round: whichever stream goes back, its mail does not come again."""
    core = AgentCore("bob", KEYS)
    broadcasts = [group_entry(k, f"b{k}") for k in range(1, 11)]
    commit(core, core.receive_group(broadcasts, "10-0", NOW))
    commit(core, core.mark_read([f"b{k}" for k in range(1, 11)]))
    for k in range(SEEN_WINDOW + 10):
        receive(core, text(f"m{k}"))
        commit(core, core.mark_read([f"m{k}"]))
    commit(core, core.forget_group(NOW))
    commit(core, core.receive_group(broadcasts, "10-0", NOW))
    assert len(core.inbox.unread) == 0
    again = AgentCore("bob", KEYS)
    for record in core.snapshot():
        again.apply(record)
    assert list(again.inbox.seen) == list(core.inbox.seen)
    for k in range(11, SEEN_WINDOW + 21):
        commit(core, core.receive_group([group_entry(k, f"b{k}")], f"{k}-0", NOW))
        commit(core, core.mark_read([f"b{k}"]))
    assert f"m{SEEN_WINDOW}" in core.inbox.seen


def test_take_gives_each_message_to_one_reader_until_it_is_released() -> None:
    """A second reader gets what the first does not hold; what was released comes first again."""
    core = AgentCore("bob", KEYS)
    receive(core, text("a"), text("b"), text("c"))
    assert [m.id for m in core.inbox.take(2, 1 << 20)] == ["a", "b"]
    assert core.inbox.free == 1
    assert [m.id for m in core.inbox.take(2, 1 << 20)] == ["c"]
    assert (core.inbox.free, len(core.inbox.unread)) == (0, 3)
    core.inbox.release(["a"])
    assert [m.id for m in core.inbox.take(5, 1 << 20)] == ["a"]
    assert [m.id for m in core.inbox.peek(5, 1 << 20)] == ["a", "b", "c"]


def test_take_stops_at_its_size_but_gives_at_least_one() -> None:
    """A message over the limit of one hand-over is still handed over."""
    core = AgentCore("bob", KEYS)
    receive(core, text("a"), text("b"))
    assert [m.id for m in core.inbox.take(5, 1)] == ["a"]


def test_too_many_open_replies_are_refused_before_anything_happens() -> None:
    """`Full`, and the entry is not there; the same id again is no new one."""
    core = AgentCore("bob", KEYS)
    for k in range(MAX_ENTRIES):
        for effect in core.open_reply(f"m{k}", "alice", "x", NOW, 1):
            for record in getattr(effect, "records", ()):
                core.apply(record)
    assert core.open_reply("m1", "alice", "x", NOW, 1) == []
    with pytest.raises(Full):
        core.open_reply("more", "alice", "x", NOW, 1)


# --- a name that moves between daemons ---


class MovingMachine(RuleBasedStateMachine):
    """One name on two daemons, one at a time; each goes on where the other stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = Stream()
        self.group = Stream()
        self.daemons = [Machine(bounds=FEW), Machine(bounds=FEW)]
        self.here = 0
        self.number = 0
        self.counts: Counter[bool] = Counter()
        self.sent: set[str] = set()
        self.read: list[str] = []
        self.start(Moved(position=Position(), group="0-0"))

    @property
    def bob(self) -> Machine:
        return self.daemons[self.here]

    def start(self, read: Moved) -> None:
        self.bob.restart()
        self.bob.execute(lambda: self.bob.core.move(read))

    @rule(broadcast=st.booleans())
    def send(self, broadcast: bool) -> None:
        self.number += 1
        message_id = f"m{self.number}"
        self.sent.add(message_id)
        self.counts[broadcast] += 1
        counted = {"sid": "5e", "n": str(self.counts[broadcast])}
        if broadcast:
            self.group.add(text(message_id, to="*", **counted), maxlen=1000)
        else:
            self.stream.add(text(message_id, **counted), maxlen=1000)

    @rule()
    def receive(self) -> None:
        self.bob.read(self.stream, NOW)

    @rule()
    def receive_group(self) -> None:
        raw = self.group.read(self.bob.core.inbox.group or "0-0", 5)
        entries = [decode(at.encode(), flat, KEYS, LIMIT) for at, flat in raw]
        broadcasts = [entry for entry in entries if isinstance(entry, Message)]
        if raw:
            self.bob.execute(lambda: self.bob.core.receive_group(broadcasts, raw[-1][0], NOW))

    @rule(data=st.data())
    def read_some(self, data: st.DataObject) -> None:
        unread = list(self.bob.core.inbox.unread)
        ids = data.draw(st.lists(st.sampled_from(unread), unique=True)) if unread else []
        self.bob.execute(lambda: self.bob.core.mark_read(ids))
        self.read += ids

    @rule()
    def spill(self) -> None:
        self.bob.spill()

    @rule(limit=st.integers(1, 9))
    def read_the_oldest(self, limit: int) -> None:
        self.bob.bring(limit)
        ids = [message.id for message in self.bob.core.inbox.peek(limit, 1 << 20)]
        self.bob.execute(lambda: self.bob.core.mark_read(ids))
        self.read += ids

    @rule()
    def move(self) -> None:
        read = self.bob.core.read_record()
        self.here = 1 - self.here
        self.start(read)

    @rule()
    def compact(self) -> None:
        self.bob.compact()

    @rule()
    def all_that_was_sent_is_unread_or_read(self) -> None:
        self.bob.catch_up(self.stream, NOW)
        while self.group.read(self.bob.core.inbox.group or "0-0", 1):
            self.receive_group()
        assert set(self.bob.unread) | set(self.read) == self.sent
        assert self.bob.core.inbox.losses.total == 0

    @rule()
    def move_when_all_is_read(self) -> None:
        self.all_that_was_sent_is_unread_or_read()
        self.read_the_oldest(1000)
        self.move()

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.bob.core.inbox.losses.total == 0

    @invariant()
    def nothing_is_read_twice(self) -> None:
        assert len(self.read) == len(set(self.read))
        assert not set(self.read) & set(self.bob.unread)

    @invariant()
    def memory_is_what_the_disk_gives(self) -> None:
        assert state(fold("bob", self.bob.disk, FEW)) == state(self.bob.core)


MovingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30)


TestMoving = MovingMachine.TestCase
