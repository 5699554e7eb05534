"""Unread mail that is put on the disk and comes back: nothing is lost, counted wrong or in another order by that."""

from __future__ import annotations

import functools
import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshd.core import records
from meshd.core.agent import AgentCore
from meshd.core.effects import Commit
from meshd.core.inbox import Inbox
from meshd.core.message import Message, decode, entry_key
from meshd.core.queue import Bounds
from meshd.core.records import Batch, Moved, Position, Segment, Spilled
from meshd.core.unread import RECENT
from tests.core.model import KEYS, LIMIT, NOW, Machine, Stream, fields, fold, state

FEW = Bounds(messages=3, chunks=1)
crashes = st.none() | st.integers(0, 8)


def message(n: int, *, broadcast: bool = False, sender: str = "alice", **more: str) -> Message:
    """The n-th of all, whose id is its number."""
    to = {"to": "*"} if broadcast else {}
    entry = decode(f"{n}-0".encode(), fields(from_=sender, msg="hi", ts="1", id=f"m{n}", **to, **more), KEYS, LIMIT)
    assert isinstance(entry, Message)
    entry.index = n
    return entry


def receive(machine: Machine, *messages: Message) -> None:
    """Private mail and broadcasts, as they are."""
    for one in messages:
        batch = Batch(now=NOW, messages=[one])
        if one.kind != "broadcast":
            batch.position = Position(one.at, one.index)
        machine.execute(functools.partial(list, [Commit([batch])]))


def full(count: int = 20, *, bounds: Bounds = FEW, broadcast: bool = False) -> Machine:
    """Has received so many messages, of which all that can be are on the disk."""
    bob = Machine(bounds=bounds)
    receive(bob, *(message(n, broadcast=broadcast) for n in range(1, count + 1)))
    bob.spill()
    return bob


def ids(numbers: range) -> list[str]:
    return [f"m{n}" for n in numbers]


class SpillingMachine(RuleBasedStateMachine):
    """Mail comes, is put on the disk and read, with crashes anywhere; files of it are damaged or vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.bob = Machine(bounds=FEW)
        self.numbers = itertools.count(1)
        self.unread: dict[str, Message] = {}  # what must be there, in order
        self.held: list[str] = []
        self.damaged: dict[int, list[str]] = {}  # ids that are in no file any more, by the numbers of segments
        self.lost = 0

    @rule(count=st.integers(1, 8), broadcast=st.booleans(), sender=st.sampled_from(["alice", "carol"]))
    def receive(self, count: int, broadcast: bool, sender: str) -> None:
        for _ in range(count):
            one = message(next(self.numbers), broadcast=broadcast, sender=sender)
            receive(self.bob, one)
            self.unread[one.id] = one

    @rule(crash=crashes, limit=st.none() | st.integers(1, 4))
    def spill(self, crash: int | None, limit: int | None) -> None:
        """While it goes to the disk somebody may take mail, for which he need not wait for the disk."""
        taken: list[str] = []
        inbox = self.bob.core.inbox
        if limit is not None:
            self.bob.meanwhile = lambda: taken.extend(one.id for one in inbox.take(limit, 1 << 20))
        self.bob.spill(crash)
        self.bob.meanwhile = lambda: None
        free = [one for one in self.unread if one not in self.held]
        assert taken == free[: len(taken)]
        self.held += taken
        self.settle()

    @rule(limit=st.integers(1, 12), direct=st.booleans(), crash=crashes)
    def take(self, limit: int, direct: bool, crash: int | None) -> None:
        """The oldest that nobody holds."""
        self.bob.bring(limit, direct=direct, crash=crash)
        self.settle()
        taken = [one.id for one in self.bob.core.inbox.take(limit, 1 << 20, direct=direct)]
        free = [
            one.id
            for one in self.unread.values()
            if one.id not in self.held and not (direct and one.kind == "broadcast")
        ]
        if crash is None:
            assert taken == free[:limit]
        else:
            assert taken == free[: len(taken)]
        self.held += taken

    @precondition(lambda self: self.held)
    @rule(data=st.data(), confirmed=st.booleans(), crash=crashes)
    def end_a_hand_over(self, data: st.DataObject, confirmed: bool, crash: int | None) -> None:
        some = data.draw(st.lists(st.sampled_from(self.held), unique=True, min_size=1))
        if not confirmed:
            self.bob.core.inbox.release(some)
            self.held = [one for one in self.held if one not in some]
            return
        read = self.bob.execute(lambda: self.bob.core.mark_read(some), crash)
        if read or not any(one in self.bob.core.inbox.unread for one in some):
            for one in some:
                self.unread.pop(one, None)
        self.held = [one for one in self.held if one not in some]
        self.settle()

    @rule(limit=st.integers(1, 12))
    def peek(self, limit: int) -> None:
        """Shows all, and changes nothing."""
        before = state(self.bob.core)
        looked: dict[int, list[Message]] = {}
        while (segment := self.bob.core.inbox.missing(limit, 1 << 20, looked=looked)) is not None:
            looked[segment.number] = self.bob.look(segment)
        found = [one.id for one in self.bob.core.inbox.peek(limit, 1 << 20, looked)]
        gone = {one for some in self.damaged.values() for one in some}
        assert found == [one for one in self.unread if one not in gone][:limit]
        assert state(self.bob.core) == before

    @precondition(lambda self: self.bob.core.inbox.unread.segments)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """Some lines of a file cannot be read any more, or the file is gone."""
        number = data.draw(st.sampled_from(sorted(self.bob.core.inbox.unread.segments)))
        lines = self.bob.segments.get(number, [])
        kept = [line for line in lines if data.draw(st.booleans())]
        found = [record.messages[0].id for record in map(records.decode, lines) if isinstance(record, records.Unread)]
        left = {record.messages[0].id for record in map(records.decode, kept) if isinstance(record, records.Unread)}
        self.damaged.setdefault(number, []).extend(one for one in found if one not in left)
        if kept:
            self.bob.segments[number] = kept
        else:
            self.bob.segments.pop(number, None)

    @rule()
    def compact(self) -> None:
        self.bob.compact()

    @rule()
    def restart(self) -> None:
        self.bob.restart()
        self.held = []

    def settle(self) -> None:
        """What was damaged is lost once it was to come back. After a crash nobody holds anything."""
        for number in self.damaged.keys() - self.bob.core.inbox.unread.segments.keys():
            gone = self.damaged.pop(number)
            self.lost += len(gone)
            for one in gone:
                del self.unread[one]
        if not self.bob.core.inbox._handed:
            self.held = []

    @invariant()
    def all_is_there_in_order(self) -> None:
        gone = {one for some in self.damaged.values() for one in some}
        assert list(self.bob.unread) == [one for one in self.unread if one not in gone]
        assert len(self.bob.core.inbox.unread) == len(self.unread)
        assert self.bob.core.inbox.free == len(self.unread) - len(self.held)

    @invariant()
    def what_somebody_holds_is_in_memory(self) -> None:
        """It could not be confirmed otherwise."""
        assert all(one in self.bob.core.inbox.unread for one in self.held)

    @invariant()
    def losses_are_exact(self) -> None:
        losses = self.bob.core.inbox.losses
        assert losses.total == losses.untold == self.lost

    @invariant()
    def what_was_read_is_told_without_a_hole(self) -> None:
        unread = self.unread.values()
        private = [entry_key(one.at) for one in unread if one.kind != "broadcast"]
        if private:
            assert entry_key(self.bob.core.read_record().position.at) < private[0]

    @invariant()
    def each_sender_is_told(self) -> None:
        assert self.bob.core.inbox.unread.senders() == {one.sender for one in self.unread.values()} or self.damaged

    @invariant()
    def memory_is_bounded_but_for_what_is_held(self) -> None:
        inbox = self.bob.core.inbox
        if inbox.surplus() is None and not self.held:
            for queue in (inbox.unread.private, inbox.unread.broadcasts):
                assert queue.hot <= max(FEW.messages * FEW.chunks, 2 * FEW.messages) + FEW.messages

    @invariant()
    def memory_is_what_the_disk_gives(self) -> None:
        assert state(fold("bob", self.bob.disk, FEW)) == state(self.bob.core)

    @invariant()
    def a_compacted_journal_gives_the_same_state(self) -> None:
        assert state(fold("bob", state(self.bob.core), FEW)) == state(self.bob.core)

    @invariant()
    def a_file_that_no_record_tells_of_is_gone_after_a_start(self) -> None:
        assert self.bob.core.inbox.unread.segments.keys() >= self.bob.segments.keys()


SpillingMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30)
TestSpilling = SpillingMachine.TestCase


def test_what_is_read_next_and_what_came_last_stays_in_memory() -> None:
    bob = full(20)
    unread = bob.core.inbox.unread
    assert list(unread)[:3] == ids(range(1, 4))
    assert list(unread)[-1] == "m20"
    assert len(unread) == 20
    assert len(list(unread)) <= 3 * FEW.messages
    assert list(bob.unread) == ids(range(1, 21))


def test_whoever_takes_private_mail_alone_leaves_broadcasts_where_they_are() -> None:
    """However many lie before it on the disk: nothing of them is read for that."""
    bob = full(50, broadcast=True)
    receive(bob, message(51))
    bob.core.inbox.take(2, 1 << 20)
    files = dict(bob.segments)
    assert bob.core.inbox.has_free(direct=True)
    assert bob.core.inbox.missing(5, 1 << 20, direct=True) is None
    assert [one.id for one in bob.core.inbox.take(5, 1 << 20, direct=True)] == ["m51"]
    assert bob.segments == files


def test_private_mail_and_broadcasts_come_in_the_order_of_the_store() -> None:
    bob = Machine(bounds=FEW)
    receive(bob, *(message(n, broadcast=n % 3 == 0) for n in range(1, 41)))
    bob.spill()
    bob.bring(40)
    assert [one.id for one in bob.core.inbox.take(40, 1 << 20)] == ids(range(1, 41))


def test_what_somebody_holds_stays_in_memory() -> None:
    """It is confirmed from there."""
    bob = Machine(bounds=FEW)
    receive(bob, *(message(n) for n in range(1, 21)))
    held = [one.id for one in bob.core.inbox.take(12, 1 << 20)]
    bob.spill()
    assert all(one in bob.core.inbox.unread for one in held)
    assert bob.segments
    bob.execute(lambda: bob.core.mark_read(held))
    assert list(bob.unread) == ids(range(13, 21))


def test_while_somebody_waits_for_mail_from_the_disk_none_is_put_there() -> None:
    """It would be the very mail that has just been read."""
    bob = full(20)
    bob.core.inbox.unread.wanted += 1
    bob.bring(20)
    assert bob.core.inbox.surplus() is None
    assert [one.id for one in bob.core.inbox.take(20, 1 << 20)] == ids(range(1, 21))
    bob.core.inbox.unread.wanted -= 1


def test_a_message_on_the_disk_is_no_new_one_when_it_comes_again() -> None:
    """A stream that went back is read again from its start."""
    bob, stream = Machine(bounds=FEW), Stream()
    for n in range(12):
        stream.add(fields(from_="alice", msg="hi", ts="1", id=f"m{n}"))
    bob.catch_up(stream, NOW)
    bob.spill()
    restore = stream.save()
    stream.add(fields(from_="alice", msg="hi", ts="1", id="last"))
    bob.catch_up(stream, NOW)
    restore()
    bob.catch_up(stream, NOW)
    assert list(bob.unread) == [*(f"m{n}" for n in range(12)), "last"]


def test_the_newest_messages_are_known_however_many_were_read_meanwhile() -> None:
    """Reading the oldest pushes none of the newest out of what is remembered, which a stream that went back brings."""
    count, read = 3 * RECENT, RECENT + 100
    bob = full(count, bounds=Bounds(messages=100, chunks=2))
    while read > 0:
        bob.bring(100)
        taken = [one.id for one in bob.core.inbox.take(100, 1 << 20)]
        bob.execute(lambda taken=taken: bob.core.mark_read(taken))  # type: ignore[misc]
        read -= len(taken)
    bob.compact()
    bob.restart()
    assert all(bob.core.inbox.is_duplicate(f"m{n}") for n in range(count - RECENT, count + 1))
    assert len(bob.core.inbox.unread.recent()) < 2 * RECENT


def test_of_a_message_on_the_disk_it_is_known_who_sent_it() -> None:
    bob = full(20)
    assert "m10" not in bob.core.inbox.unread
    assert bob.core.inbox.origin("m10") == ("alice", False, None)
    assert bob.core.inbox.unread_from("m10") == "alice"
    assert bob.core.inbox.unread_from("other") is None


def test_a_message_that_came_again_is_one_when_the_first_comes_back() -> None:
    """It was not known any more, and keeps the place of the first, also for whoever holds it."""
    bob = full(20)
    for segment in bob.core.inbox.unread.segments.values():
        bob.core.inbox.unread._forget_ids(segment)
    again = message(21)
    again.id = "m10"
    receive(bob, again)
    assert len(bob.core.inbox.unread) == 21
    bob.bring(30)
    assert [one.id for one in bob.core.inbox.take(30, 1 << 20)] == ids(range(1, 21))
    assert len(bob.core.inbox.unread) == 20


def test_a_re_ping_of_a_message_on_the_disk_is_no_mail() -> None:
    """It is still unread: its agent is woken again. Anybody else's text is a message."""
    bob = full(20)
    for sender, kept in (("alice", False), ("mallory", True)):
        entry = decode(b"30-0", fields(from_=sender, msg="?", ts="1", id=f"r-{sender}", about="m10"), KEYS, LIMIT)
        bob.execute(lambda entry=entry: bob.core.receive([entry], "30-0", NOW))  # type: ignore[misc]
        assert (f"r-{sender}" in bob.core.inbox.unread) == kept
        bob.core.inbox.position = Position("20-0", 20)


def test_mail_whose_file_is_gone_is_lost_once_and_the_rest_goes_on() -> None:
    bob = full(20)
    gone = min(bob.segments)
    count = bob.core.inbox.unread.segments[gone].count
    del bob.segments[gone]
    bob.bring(20)
    assert bob.core.inbox.losses.total == bob.core.inbox.losses.untold == count
    assert len(bob.core.inbox.take(20, 1 << 20)) == 20 - count
    told = [line for line in bob.lines if line.startswith("⚠ LOST")]
    assert told == [f"⚠ LOST {count} messages to bob: segment {gone} of its unread mail is damaged"]
    bob.restart()
    assert bob.core.inbox.losses.total == count


def test_what_was_read_elsewhere_does_not_come_back_from_the_disk() -> None:
    """Up to where the name was read: whole files are removed unread, and of one that is reached in part the rest
    stays; and single messages above that."""
    bob = full(30)
    read = Moved(position=Position("20-0", 20), read_to="20-0", read_ids=["m23"])
    assert any("m23" in segment.ids for segment in bob.core.inbox.unread.segments.values())
    before = len(bob.segments)
    bob.execute(lambda: bob.core.move(read))
    assert list(bob.unread) == [one for one in ids(range(21, 31)) if one != "m23"]
    assert len(bob.segments) < before - 3
    assert bob.core.inbox.read_position() == Position("20-18446744073709551615", 20)
    bob.bring(30)
    taken = [one.id for one in bob.core.inbox.take(30, 1 << 20)]
    assert taken == [one for one in ids(range(21, 31)) if one != "m23"]
    assert len(bob.core.inbox.unread) == len(taken)


def test_broadcasts_that_were_read_elsewhere_do_not_come_back_from_the_disk() -> None:
    bob = full(30, broadcast=True)
    bob.execute(lambda: bob.core.move(Moved(position=Position(), group="20-0")))
    assert list(bob.unread) == ids(range(21, 31))
    assert len(bob.core.inbox.unread) == 10
    assert bob.core.inbox.losses.total == 0


def test_what_the_store_has_no_more_is_found_on_the_disk_too() -> None:
    """For the next holder of the name. A file in which there is none is not looked at."""
    bob = full(30)
    found = list(bob.core.inbox.left_behind("12-0", "0-0"))
    assert [one.id for one in found if isinstance(one, Message)] == ids(range(1, 4))
    there = [one.id for part in found if isinstance(part, Segment) for one in bob.look(part)]
    assert set(ids(range(4, 12))) <= set(there)
    assert "m20" not in there
    left = [one for part in found if isinstance(part, Segment) for one in bob.look(part)]
    assert [one.id for one in left if Inbox.is_left(one, "12-0", "0-0")] == ids(range(4, 12))


def test_a_journal_that_tells_of_segments_is_of_a_format_that_older_versions_refuse() -> None:
    """And one that tells of none is as they write it."""
    bob = full(20)
    assert next(bob.core.snapshot()) == records.Header(name="bob", format=records.FORMAT, compacted=True)
    bob.bring(20)
    assert next(bob.core.snapshot()) == records.Header(name="bob", format=records.PLAIN, compacted=True)


@settings(max_examples=60)
@given(
    kept=st.integers(0, 30).flatmap(lambda n: st.lists(st.booleans(), min_size=n, max_size=n)),
    wider=st.sampled_from([Bounds(messages=2, chunks=1), Bounds(messages=7, chunks=1)]),
)
def test_bounds_may_be_others_at_the_next_start(kept: list[bool], wider: Bounds) -> None:
    """Where a segment begins and ends is in the journal, and not in the bounds; records that are missing harm no other.

    They are what a damaged journal has left.
    """
    bob = full(30)
    left = [
        line for line, there in zip(bob.disk, [*kept, *itertools.repeat(True, len(bob.disk))], strict=False) if there
    ]
    gone = [records.decode(line) for line in bob.disk if line not in left]
    core = fold("bob", left, wider)
    expected = Counter(ids(range(1, 31)))
    for record in gone:
        expected.subtract(one.id for one in record.messages) if isinstance(record, Batch) else None
    told = {one for line in left if isinstance(record := records.decode(line), Spilled) for one in record.segment.ids}
    assert len(core.inbox.unread) == sum(one in told or count > 0 for one, count in expected.items())


def test_memory_holds_what_it_may_of_long_messages() -> None:
    """By the bytes of their texts."""
    bob = Machine(bounds=Bounds(messages=100, size=100, chunks=2))
    receive(bob, *(message(n) for n in range(1, 200)))
    bob.spill()
    assert bob.core.inbox.unread.size <= 3 * 100
    assert bob.core.inbox.unread.size == sum(one.size for one in bob.core.inbox.unread.values())
    assert len(bob.unread) == 199


@pytest.mark.parametrize("broadcast", [False, True])
def test_an_empty_inbox_has_no_files(broadcast: bool) -> None:
    bob = full(20, broadcast=broadcast)
    while bob.core.inbox.has_free():
        bob.bring(4)
        taken = [one.id for one in bob.core.inbox.take(4, 1 << 20)]
        bob.execute(lambda taken=taken: bob.core.mark_read(taken))  # type: ignore[misc]
    assert bob.segments == {}
    assert len(bob.core.inbox.unread) == 0
    core = AgentCore("bob", KEYS)
    assert core.inbox.unread == {}
