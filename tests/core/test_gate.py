"""The scripts of the store against plain models of them: the rate gate, the send, and the lease of a name."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any, TypeVar

import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.names import Keys
from meshd.core.records import Position
from meshd.core.wire import GATE_WINDOW, Outgoing
from meshd.store.scripts import answers, leases, sending
from meshd.store.scripts.script import Invocation
from tests.helper import Store

T = TypeVar("T")

examples = itertools.count()
names = st.sampled_from(["alice", "bob"])
targets = st.sampled_from(["carol", "*"])
KEPT = ("group", "all", "gate:audit", "presence")  # and the streams to_*: all others expire


def run(client: redis.Redis, invocation: Invocation[T]) -> T:
    script, keys, args = invocation
    return script.read(client.eval(script.source.decode(), len(keys), *keys, *args))


def assert_all_expires(client: redis.Redis, keys: Keys) -> None:
    """Every key of the prefix has a time to live, but those that the contract names."""
    for key in client.scan_iter(f"{keys.prefix}:*", 1000):
        short = key.decode().removeprefix(f"{keys.prefix}:")
        if short not in KEPT:
            assert client.pttl(key) > 0, key


class Sends:
    """send.lua, with a model beside it: a fixed window per sender and target, and one entry an id."""

    def __init__(self, client: redis.Redis, keys: Keys, limit: int, enforce: bool, incarnation: str = "5e") -> None:
        self.client, self.keys, self.limit, self.enforce = client, keys, limit, enforce
        self.incarnation = incarnation
        self.rate: Counter[tuple[str, str]] = Counter()
        self.entry: dict[str, str] = {}  # id -> entry id, as long as it is remembered
        self.number: dict[str, int] = {}  # id -> its count
        self.said: dict[str, tuple[str, str]] = {}  # id -> what was sent under it
        self.private: dict[str, list[str]] = {}
        self.group: list[tuple[str, str]] = []
        self.audit: list[tuple[str, str, str, str]] = []
        self.count: Counter[tuple[str, str]] = Counter()

    def send(self, message_id: str, sender: str, target: str, private: bool, gated: bool) -> None:
        """Send, and compare all that the script says with the model."""
        verdict, entry, n, held, rate, left, _ = self._call(message_id, sender, target, private, gated)
        assert not held
        pair = (sender, target)
        if message_id in self.entry:
            same = self.said[message_id] == pair
            assert (verdict, entry) == ("again" if same else "other", self.entry[message_id])
            assert n == (self.number[message_id] if same else 0)
            return
        over = False
        if gated:
            self.rate[pair] += 1
            over = self.rate[pair] > self.limit
            said = "allow" if not over else "deny" if self.enforce else "observe"
            self.audit.append((sender, target, str(self.rate[pair]), said))
            assert rate == self.rate[pair]
            assert 0 < left <= GATE_WINDOW
        if over and self.enforce:
            assert (verdict, entry, n) == ("denied", "", 0)
            return
        self.count[pair] += 1
        self.number[message_id] = self.count[pair]
        assert (verdict, n) == ("sent", self.count[pair])
        self.entry[message_id], self.said[message_id] = entry, pair
        if target != "*":
            self.private.setdefault(target, []).append(message_id)
        if target == "*" or not private:
            self.group.append((message_id, target))

    def _call(
        self, message_id: str, sender: str, target: str, private: bool, gated: bool, floor: int = 0
    ) -> sending.SendResult:
        out = Outgoing(message_id, sender, target, "text " * 100, private, ("re", "x"), gated)
        gate = sending.Gate(self.limit, self.enforce)
        digest = f"d{sender}{target}"
        return run(
            self.client,
            sending.send(self.keys, out, sid=self.incarnation, floor=floor, gate=gate, digest=digest, ts=1.5),
        )

    def check(self) -> None:
        """What stands in the store is what the model says."""
        for target, ids in self.private.items():
            assert self._fields(self.keys.inbox(target), "id") == [(i,) for i in ids]
        assert self._fields(self.keys.group, "id", "to") == self.group
        assert self._fields(self.keys.audit, "from", "to", "rate", "verdict") == self.audit
        assert all(
            found == ("x",)
            for stream in (*map(self.keys.inbox, self.private), self.keys.group)
            for found in self._fields(stream, "re")
        )
        assert all(len(text) == 200 for (text,) in self._fields(self.keys.audit, "msg"))
        assert_all_expires(self.client, self.keys)

    def _fields(self, stream: str, *wanted: str) -> list[tuple[str, ...]]:
        rows: Any = self.client.xrange(stream)
        return [tuple(found[name.encode()].decode() for name in wanted) for _, found in rows]


steps = st.one_of(
    st.tuples(st.just("send"), names, targets, st.booleans(), st.sampled_from([True, True, True, False])),
    st.tuples(st.just("repeat"), st.integers(0, 50)),
    st.tuples(st.just("same id"), st.integers(0, 50), names, targets),
    st.tuples(st.just("window ends"), names, targets),
    st.tuples(st.just("id forgotten"), st.integers(0, 50)),
)


@settings(max_examples=60)
@given(history=st.lists(steps, max_size=25), limit=st.integers(1, 4), enforce=st.booleans())
def test_sends_and_their_gate(server: Store, history: list[tuple[Any, ...]], limit: int, enforce: bool) -> None:
    """Verdicts, entries, copies, counts and audit are those of the model; a repeated send is the first one's entry."""
    with server.client() as client:
        keys = Keys(f"gate{next(examples)}")
        sends = Sends(client, keys, limit, enforce)
        calls: list[tuple[Any, ...]] = []
        for what, *rest in history:
            if what == "send":
                calls.append((f"m{len(calls)}", *rest))
                sends.send(*calls[-1])
            elif what == "repeat" and calls:  # the caller died, or did not learn the outcome
                sends.send(*calls[rest[0] % len(calls)])
            elif what == "same id" and calls:
                message_id, *_, private, gated = calls[rest[0] % len(calls)]
                calls.append((message_id, rest[1], rest[2], private, gated))
                sends.send(*calls[-1])
            elif what == "window ends":
                client.delete(keys.rate(rest[0], rest[1]))
                sends.rate.pop((rest[0], rest[1]), None)
            elif what == "id forgotten" and calls:
                forgotten = calls[rest[0] % len(calls)][0]
                client.delete(keys.dedupe(forgotten))
                sends.entry.pop(forgotten, None)
        sends.check()


def test_an_id_that_was_remembered_without_a_digest_is_the_same_send(server: Store, prefix: str) -> None:
    """As earlier versions wrote it."""
    with server.client() as client:
        sends = Sends(client, Keys(prefix), 5, enforce=True)
        client.set(sends.keys.dedupe("a"), "5-1")
        assert sends._call("a", "alice", "bob", True, True)[:3] == ("again", "5-1", 0)


def test_the_window_is_fixed(server: Store, prefix: str) -> None:
    """It ends when its first send says, however many follow."""
    with server.client() as client:
        sends = Sends(client, Keys(prefix), 2, enforce=True)
        sends.send("a", "alice", "bob", private=True, gated=True)
        client.pexpire(sends.keys.rate("alice", "bob"), 4000)
        for message_id in ("b", "c", "d"):
            sends.send(message_id, "alice", "bob", private=True, gated=True)
            assert 0 < client.pttl(sends.keys.rate("alice", "bob")) <= 4000


def test_a_rate_key_without_an_end_gets_one(server: Store, prefix: str) -> None:
    """A 0.1 program that died between its two commands must not close the gate for ever."""
    with server.client() as client:
        sends = Sends(client, Keys(prefix), 5, enforce=True)
        client.set(sends.keys.rate("alice", "bob"), 2)
        sends.rate["alice", "bob"] = 2
        sends.send("a", "alice", "bob", private=True, gated=True)
        assert 0 < client.ttl(sends.keys.rate("alice", "bob")) <= GATE_WINDOW


def test_counts_go_on_after_a_store_that_went_back(server: Store, prefix: str) -> None:
    """From what the sender knows: the gap is what the receiver sees."""
    with server.client() as client:
        sends = Sends(client, Keys(prefix), 5, enforce=False)
        assert sends._call("a", "alice", "bob", True, True)[2] == 1
        client.delete(sends.keys.count("5e", "alice", "bob"))
        assert sends._call("b", "alice", "bob", True, True, floor=7)[2] == 8
        assert sends._call("c", "alice", "bob", True, True, floor=7)[2] == 9


def test_a_broken_group_or_audit_does_not_break_a_send(server: Store, prefix: str) -> None:
    """A key of the wrong type takes no copy; the message is there, once."""
    with server.client() as client:
        sends = Sends(client, Keys(prefix), 5, enforce=False)
        client.set(sends.keys.group, "x")
        client.set(sends.keys.audit, "x")
        assert sends._call("a", "alice", "bob", False, True)[0] == "sent"
        assert sends._call("a", "alice", "bob", False, True)[0] == "again"
        assert client.xlen(sends.keys.inbox("bob")) == 1


def test_a_send_says_whether_somebody_holds_the_name(server: Store, prefix: str) -> None:
    """By our lease, or by a 0.1 program's registry entry."""
    with server.client() as client:
        sends = Sends(client, Keys(prefix), 5, enforce=False)
        for k, key in enumerate([sends.keys.lease("bob"), sends.keys.registry("bob")]):
            client.set(key, "x", ex=180)
            assert sends._call(f"m{k}", "alice", "bob", True, True).held
            client.delete(key)
        assert not sends._call("m9", "alice", "bob", True, True).held


def test_an_answer_expires(server: Store, prefix: str) -> None:
    """A reply that nobody fetches is gone with its key."""
    with server.client() as client:
        keys = Keys(prefix)
        run(client, answers.reply(keys, "0" * 32, "7", ("from", "bob", "reply", "yes", "ts", "1")))
        ((_, found),) = client.xrange(keys.reply("0" * 32))
        assert found == {b"from": b"bob", b"reply": b"yes", b"ts": b"1"}
        assert_all_expires(client, keys)


# --- the lease ---

LEASE_TTL = 180


def host(
    keys: Keys, daemon: str, entry: bytes, *, takeover: bool = False
) -> Invocation[leases.Granted | leases.Withheld]:
    nonce = "0" * 32
    return leases.host(
        keys,
        "bob",
        instance=daemon,
        ttl=LEASE_TTL,
        entry=entry,
        now=1000,
        takeover=takeover,
        nonce=nonce,
        cursor="0-0",
    )


def renew(keys: Keys, daemon: str, entry: bytes, *, ttl: int = LEASE_TTL, now: float = 1000) -> Invocation[bool]:
    return leases.renew(keys, "bob", instance=daemon, ttl=ttl, entry=entry, now=now)


def position(keys: Keys, daemon: str, record: bytes) -> Invocation[leases.Noted]:
    return leases.position(keys, "bob", instance=daemon, record=record, read_to="0-0", received=Position())


daemons = st.sampled_from(["one", "two", "three"])
lease_steps = st.one_of(
    st.tuples(st.just("host"), daemons, st.booleans(), st.booleans()),
    st.tuples(st.just("renew"), daemons, st.booleans()),
    st.tuples(st.just("release"), daemons),
    st.tuples(st.just("position"), daemons),
    st.tuples(st.just("expire")),
)


@settings(max_examples=80)
@given(st.lists(lease_steps, max_size=25))
def test_a_name_has_one_holder(server: Store, history: list[tuple[Any, ...]]) -> None:
    """Held until it is released, expires or is taken over; whoever is not the holder is told who is.

    Only the holder renews, and only the holder writes over what another daemon said of how far the name was read.
    Whoever may have held it until now is told: the holder, or, where the lease is gone, who wrote the last word.
    """
    with server.client() as client:
        keys = Keys(f"lease{next(examples)}")
        place = b"place"
        client.set(keys.read("bob"), place, ex=60)
        group_last: Any = client.xadd(keys.group, {"from": "x"})
        holder: str | None = None
        registered = b""
        told, writer = 0, ""
        for number, (what, *rest) in enumerate(history):
            if what == "expire":
                client.delete(keys.lease("bob"), keys.registry("bob"))
                holder, registered = None, b""
                continue
            daemon = rest[0]
            free = holder is None or holder == daemon
            if what == "host":
                _, takeover, hidden = rest
                entry = b"" if hidden else f"entry of {daemon}".encode()
                there: Any = client.xrange(keys.inbox("bob"), count=1)
                first = there[0][0].decode() if there else ""
                reply = run(client, host(keys, daemon, entry, takeover=takeover))
                if free or takeover:
                    before = holder if holder is not None else writer
                    previous = "" if before == daemon else before
                    assert reply == leases.Granted(place, group_last.decode(), previous, told, told, False, first)
                    told += previous != ""
                    holder, registered = daemon, entry or registered
                else:
                    assert reply == leases.Withheld(holder or "", registered)
            elif what == "position":
                value = json.dumps({"p": f"{number}-0", "h": daemon}).encode()
                said = run(client, position(keys, daemon, value))
                assert said == leases.Noted(holder == daemon, daemon in (holder, writer))
                if daemon in (holder, writer):
                    place, writer = value, daemon
            else:
                hidden = what == "renew" and rest[1]
                entry = b"" if hidden else f"entry of {daemon}".encode()
                ttl = LEASE_TTL if what == "renew" else 0
                renewed = run(client, renew(keys, daemon, entry, ttl=ttl))
                kept = holder == daemon if what == "renew" else free
                assert renewed == kept
                if kept and what == "renew":
                    registered = entry or registered
                elif kept:
                    holder, registered = None, b""
            assert client.get(keys.lease("bob")) == (holder.encode() if holder else None)
            assert (client.get(keys.registry("bob")) or b"") == registered
            assert client.get(keys.read("bob")) == place
            assert_all_expires(client, keys)
        # A takeover is told to the holder by a ping that 0.1 programs understand, and by nothing else.
        pings: Any = client.xrange(keys.inbox("bob"))
        assert len(pings) == told
        for _, found in pings:
            assert (found[b"from"], found[b"msg_type"], found[b"nonce"]) == (b"bob", b"ping", b"0" * 32)


def test_a_lease_is_renewed_to_its_full_time(server: Store, prefix: str) -> None:
    """And the presence index says until when, and keeps a name that was given up."""
    with server.client() as client:
        keys = Keys(prefix)
        run(client, host(keys, "one", b"entry"))
        client.expire(keys.lease("bob"), 5)
        run(client, renew(keys, "one", b"entry", now=1040))
        assert client.ttl(keys.lease("bob")) > 170
        assert client.zscore(keys.presence, "bob") == 1040 + LEASE_TTL
        run(client, renew(keys, "one", b"", ttl=0, now=1050))
        assert client.zscore(keys.presence, "bob") == 1050
