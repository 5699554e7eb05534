"""One holder for a name: two daemons on one model of the store, with stops, cuts, crashes and takeovers at any step."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshd.core.clock import Mono, Wall
from meshd.core.effects import CheckLease
from meshd.core.lease import HANDOVER, SURE, TTL, Ask, Lease, LeaseState, Now
from meshd.core.message import Message, decode, entry_before, entry_key
from meshd.core.records import Moved, Position
from tests.core.model import KEYS, LIMIT, Machine, Stream, fields

START = 1_700_000_000.0


class Record(NamedTuple):
    """The read record: how far the name was read, and by whom."""

    moved: Moved
    by: str
    held: bool  # until it has given the name up


class Place:
    """The store: the lease, the name's stream, the read record, and what the last holder has left."""

    def __init__(self) -> None:
        self.wall = START
        self.mono = 0.0
        self.holder: str | None = None
        self.until = 0.0
        self.stream = Stream()
        self.record: Record | None = None
        self.left: tuple[list[bytes], Position] | None = None

    @property
    def now(self) -> Now:
        return Now(Wall(self.wall), Mono(self.mono))

    def held_by(self) -> str | None:
        return self.holder if self.wall < self.until else None

    def give(self, name: str) -> None:
        self.holder, self.until = name, self.wall + TTL


class Daemon:
    """One daemon that hosts the name, or not. It asks and tells the store as meshd/hosting/lease.py does."""

    def __init__(self, name: str, store: Place) -> None:
        self.name = name
        self.store = store
        self.agent = Machine()
        self.lease = Lease()
        self.hosts = False
        self.cut = False
        self.stopped = False
        self.held: list[list[str]] = []  # hand-overs that are under way
        self.unwritten: set[str] = set()  # read here, and the store does not know it yet

    @property
    def reachable(self) -> bool:
        return not (self.cut or self.stopped)

    def take(self, other: Daemon, *, takeover: bool) -> bool:
        """Whether the name is ours now."""
        store = self.store
        if self.hosts and self.lease.gone:
            return False
        before = store.held_by()
        if before not in (None, self.name) and not takeover:
            return False
        if not self.hosts:
            self.lease, self.hosts = Lease(), True
        asked = store.now
        store.give(self.name)
        previous = before if before != self.name else None
        if before is None and store.record is not None and store.record.held and store.record.by != self.name:
            previous = store.record.by
        if previous is not None:
            store.stream.add(fields(from_="bob", msg_type="ping", nonce="0" * 32, ts="1", moved="x"))
            if other.hosts and other.reachable:
                other.let_go()
            else:
                store.wall += HANDOVER
                store.mono += HANDOVER
        self.move_in()
        self.lease.proven(asked)
        self.write_position()
        return True

    def move_in(self) -> None:
        store, core = self.store, self.agent.core
        info = store.stream.info
        if store.record is None and core.inbox.group is None:
            begin = Moved(position=Position("0-0", info.added - info.length), group="0-0", read_to="0-0")
            self.agent.execute(lambda: core.move(begin))
        elif store.record is not None and (store.record.by != self.name or core.inbox.group is None):
            moved = store.record.moved
            self.agent.execute(lambda: core.move(moved))
        if store.left is not None:
            entries, until = store.left
            found = [decode(at, flat, KEYS, LIMIT) for at, flat in map(_unpacked, entries)]
            self.agent.execute(lambda: core.take_left(found, until, store.now.wall))  # type: ignore[arg-type]
            store.left = None

    def write_position(self, *, given_up: bool = False) -> None:
        """As position.lua: who does not hold the name writes over its own last word only."""
        store = self.store
        ours = store.held_by() == self.name
        if ours or store.record is None or store.record.by == self.name:
            store.record = Record(self.agent.core.read_record(), self.name, held=not given_up)
            self.unwritten.clear()

    def give_left(self) -> None:
        stream, inbox = self.store.stream, self.agent.core.inbox
        first = stream.entries[0][0] if stream.entries else f"{entry_key(stream.last)[0]}-1"
        left = [one for one in inbox.left_behind(first, "0-0") if isinstance(one, Message)]
        if left:
            base = Position(entry_before(first), stream.added - len(stream.entries))
            until = base if inbox.position.index >= base.index else inbox.position
            self.store.left = ([_packed(message.at, message.id) for message in left], until)

    def let_go(self) -> None:
        """It hears that the name was taken over, and says its last word. Its hand-overs were confirmed by then."""
        self.lease.end()
        self.write_position()
        self.agent.execute(self.agent.core.give_losses)
        self.give_left()
        self.forget()

    def forget(self) -> None:
        self.hosts = False
        self.agent.core.inbox.release([message_id for ids in self.held for message_id in ids])

    def ensure(self, other: Daemon) -> bool:
        """Whether mail may be handed out or confirmed, after asking what must be asked."""
        store = self.store
        if self.lease.may_hand_out(store.now, reachable=self.reachable):
            return True
        if not self.reachable:
            return False
        if self.lease.asks(store.now) is Ask.RENEW:
            if store.held_by() == self.name:
                self.lease.proven(store.now)
                return True
            self.lease.lost()
        if self.take(other, takeover=False):
            return True
        self.lease.end()
        self.write_position()
        self.give_left()
        self.forget()
        return False


def _packed(at: str, message_id: str) -> bytes:
    return f"{at} {message_id}".encode()


def _unpacked(entry: bytes) -> tuple[bytes, list[bytes]]:
    at, _, message_id = entry.partition(b" ")
    return at, fields(from_="alice", msg="x", ts="1", id=message_id.decode())


class TwoDaemons(RuleBasedStateMachine):
    """Both readers are one history: who read what, and whether it may have been read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Place()
        self.daemons = [Daemon("one", self.store), Daemon("two", self.store)]
        self.ids = map("m{}".format, itertools.count())
        self.sent: list[str] = []
        self.read: dict[str, list[str]] = {}
        self.excused: set[str] = set()
        self.at: dict[str, str] = {}  # entry id -> message id
        self.gone: set[str] = set()  # trimmed before anybody hosted the name: nobody can know of it
        self.counts = itertools.count(1)

    def pair(self, first: int) -> tuple[Daemon, Daemon]:
        return self.daemons[first], self.daemons[1 - first]

    @rule(number=st.integers(1, 5))
    def send(self, number: int) -> None:
        for _ in range(number):
            message_id = next(self.ids)
            self.sent.append(message_id)
            flat = fields(from_="alice", msg="x", ts="1", id=message_id, sid="5e", n=str(next(self.counts)))
            trimmed = self.store.stream.add(flat, maxlen=8)
            self.at[self.store.stream.last] = message_id
            if not any(daemon.agent.core.inbox.group for daemon in self.daemons):
                self.gone |= {self.at[at] for at in trimmed if at in self.at}

    @rule(who=st.integers(0, 1), takeover=st.booleans())
    def host(self, who: int, takeover: bool) -> None:
        daemon, other = self.pair(who)
        if daemon.reachable and not (daemon.hosts and daemon.lease.gone):
            self.before_takeover(other)
            daemon.take(other, takeover=takeover)

    def before_takeover(self, other: Daemon) -> None:
        """What the other one has read and not written down may be read again, if it cannot be reached."""
        if not other.reachable or not other.hosts:
            self.excused |= other.unwritten

    @rule(who=st.integers(0, 1))
    def receive(self, who: int) -> None:
        daemon, other = self.pair(who)
        if not (daemon.hosts and daemon.reachable):
            return
        if not daemon.lease.may_receive(self.store.now):
            self.before_takeover(other)
            if not daemon.ensure(other):
                return
        done = len(daemon.agent.done)
        daemon.agent.read(self.store.stream, self.store.now.wall)
        if any(isinstance(effect, CheckLease) for effect in daemon.agent.done[done:]):
            daemon.lease.lost()
            daemon.ensure(other)

    @rule(who=st.integers(0, 1), limit=st.integers(1, 4))
    def hand_out(self, who: int, limit: int) -> None:
        daemon, other = self.pair(who)
        if daemon.stopped or not daemon.hosts or not self.asked(daemon, other):
            return
        taken = [message.id for message in daemon.agent.core.inbox.take(limit, 1 << 20)]
        if taken:
            daemon.held.append(taken)
            if daemon.reachable:
                assert self.store.held_by() in (None, daemon.name), "it was handed out with another one's lease"

    def asked(self, daemon: Daemon, other: Daemon) -> bool:
        if daemon.reachable and daemon.lease.asks(self.store.now) is Ask.ACQUIRE:
            self.before_takeover(other)
        return daemon.ensure(other)

    @precondition(lambda self: any(daemon.held for daemon in self.daemons))
    @rule(who=st.integers(0, 1), confirmed=st.booleans(), written=st.booleans())
    def end_of_hand_over(self, who: int, confirmed: bool, written: bool) -> None:
        """It is confirmed or not; and the store may hear of it at once, or not yet."""
        daemon, other = self.pair(who)
        if daemon.stopped or not daemon.held:
            return
        ids = daemon.held.pop(0)
        inbox = daemon.agent.core.inbox
        if not confirmed or not daemon.hosts or not self.asked(daemon, other):
            inbox.release(ids)
            return
        daemon.agent.execute(lambda: daemon.agent.core.mark_read(ids))
        for message_id in ids:
            self.read.setdefault(message_id, []).append(daemon.name)
        daemon.unwritten |= set(ids)
        if daemon.cut:
            self.excused |= set(ids)  # the store cannot be told, and nobody can learn of it
        elif written:
            daemon.write_position()

    @rule(who=st.integers(0, 1), written=st.booleans())
    def read_all(self, who: int, written: bool) -> None:
        """What a reader does as a rule, so that long histories are short to find."""
        self.receive(who)
        self.hand_out(who, 4)
        if self.daemons[who].held:
            self.end_of_hand_over(who, True, written)

    @rule(who=st.integers(0, 1), stopped=st.booleans())
    def stop(self, who: int, stopped: bool) -> None:
        self.daemons[who].stopped = stopped

    @rule(who=st.integers(0, 1), cut=st.booleans())
    def cut(self, who: int, cut: bool) -> None:
        self.daemons[who].cut = cut

    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        """Killed, and started again: what was not confirmed is unread, and no lease is known."""
        daemon = self.daemons[who]
        daemon.held.clear()
        daemon.agent.restart()
        daemon.lease = Lease()
        daemon.stopped = False

    @rule(who=st.integers(0, 1))
    def give_up(self, who: int) -> None:
        daemon = self.daemons[who]
        if daemon.hosts and daemon.reachable and not daemon.held:
            if self.store.held_by() == daemon.name:
                daemon.write_position(given_up=True)
                daemon.give_left()
                self.store.holder = None
            daemon.lease.end()
            daemon.forget()

    @rule(seconds=st.sampled_from([0.1, SURE / 2, SURE + 0.1, 60.0, TTL - 1, TTL + 1]), asleep=st.booleans())
    def time_goes_by(self, seconds: float, asleep: bool) -> None:
        """A machine that sleeps sees no monotonic time go by."""
        self.store.wall += seconds
        self.store.mono += 0.0 if asleep else seconds

    @rule()
    def the_lease_is_gone(self) -> None:
        self.store.holder = None

    # --- what must hold ---

    @invariant()
    def nothing_is_read_at_two_places(self) -> None:
        for message_id, places in self.read.items():
            assert len(set(places)) == 1 or message_id in self.excused, (message_id, places)
            assert len(places) == len(set(places)) or message_id in self.excused, (message_id, places)

    @rule()
    def all_is_there_once_somebody_reads(self) -> None:
        """With both daemons back, the holder has every message that was sent and not read; none is lost unnoticed."""
        for daemon in self.daemons:
            daemon.cut = daemon.stopped = False
            daemon.held.clear()
        one, other = self.daemons
        if other.hosts:
            one, other = other, one
        self.before_takeover(other)
        one.take(other, takeover=True)
        one.agent.catch_up(self.store.stream, self.store.now.wall)
        inbox = one.agent.core.inbox
        known = set(inbox.unread) | set(inbox.seen) | set(self.read) | self.gone
        missing = [message_id for message_id in self.sent if message_id not in known]
        assert len(missing) <= inbox.losses.total, missing


TwoDaemons.TestCase.settings = settings(max_examples=1500, stateful_step_count=30)
TestTwoDaemons = TwoDaemons.TestCase


def at(wall: float, mono: float | None = None) -> Now:
    return Now(Wall(START + wall), Mono(wall if mono is None else mono))


def test_a_lease_is_believed_for_a_moment_and_lasts_for_its_time() -> None:
    lease = Lease()
    assert lease.state(at(0)) is LeaseState.WANTED
    lease.proven(at(0))
    assert lease.state(at(SURE)) is LeaseState.HELD
    assert lease.state(at(SURE + 0.01)) is LeaseState.DOUBTFUL
    assert lease.state(at(TTL)) is LeaseState.DOUBTFUL
    assert lease.state(at(TTL + 0.01)) is LeaseState.WANTED
    lease.end()
    assert lease.state(at(0)) is LeaseState.GONE


def test_doubt_is_for_who_can_ask() -> None:
    """With the store away mail is handed out for as long as the lease lasts; with it there, only after asking."""
    lease = Lease()
    lease.proven(at(0))
    assert lease.may_hand_out(at(10), reachable=False)
    assert not lease.may_hand_out(at(10), reachable=True)
    assert not lease.may_hand_out(at(TTL + 1), reachable=False)


def test_where_nobody_else_can_come_a_lease_that_ran_out_is_nobody_s() -> None:
    lease = Lease(alone=True)
    assert lease.may_hand_out(at(TTL * 10), reachable=False)
    assert not lease.may_hand_out(at(TTL * 10), reachable=True)


@pytest.mark.parametrize(("wall", "mono"), [(SURE + 1, 0.0), (-SURE - 1, 0.0), (0.0, SURE + 1)])
def test_time_is_counted_by_the_clock_that_shows_more(wall: float, mono: float) -> None:
    """A machine that slept, a clock that was set back, and one that was set back by just what went by."""
    lease = Lease()
    lease.proven(at(0))
    assert lease.state(at(wall, mono)) is LeaseState.DOUBTFUL


def test_an_answer_that_comes_late_proves_no_more_than_what_was_asked_before_it() -> None:
    lease = Lease()
    lease.proven(at(5))
    lease.proven(at(1))
    assert lease.state(at(5 + SURE / 2)) is LeaseState.HELD
    lease.lost()
    lease.end()
    lease.proven(at(6))
    assert lease.state(at(6)) is LeaseState.GONE


def test_for_a_last_word_hand_overs_may_be_confirmed_that_are_under_way() -> None:
    lease = Lease()
    lease.lost()
    lease.yield_until(Mono(3.0))
    assert lease.may_confirm(at(2.9), reachable=True)
    assert not lease.may_hand_out(at(2.9), reachable=True)
    assert not lease.may_confirm(at(3.1), reachable=True)
    lease.yield_until(Mono(3.0))
    lease.end()
    assert not lease.may_confirm(at(2.9), reachable=True)
