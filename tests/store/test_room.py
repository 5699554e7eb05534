"""Room in a mailbox: what a send may push out, whatever stands in the store, and what goes because it was read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.message import entry_after, entry_before, entry_key
from meshd.core.names import Keys
from meshd.core.records import Position
from meshd.core.wire import MAXLEN, READ_RECORD, READ_TTL, STREAM_TTL, Outgoing
from meshd.store.scripts import leases, pinging, sending
from meshd.store.scripts.script import Invocation
from tests.helper import Store

T = TypeVar("T")

HALVES = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 9, 10, 2**53, 2**53 + 1, 2**63, 2**64 - 1]))
IDS = st.builds(lambda left, right: f"{left}-{right}", HALVES, HALVES)


class Box:
    """The mailbox of bob, with entries 1-0, 2-0 … of a 0.1 program, and those that are sent to it."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self.client: Any = client
        self.keys = Keys(prefix)
        self.stream = self.keys.inbox("bob")

    def fill(self, count: int = MAXLEN) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            for k in range(1, count + 1):
                pipe.xadd(self.stream, {"from": "old", "msg": "x", "ts": "1", "id": f"o{k}"}, id=f"{k}-0")
            pipe.execute()

    def send(self, message_id: str = "", target: str = "bob", *, again: bool = False) -> sending.SendResult:
        out = Outgoing(message_id or secrets.token_hex(16), "alice", target, "hello", private=True)
        gate = sending.Gate(40, enforce=True)
        return self.run(sending.send(self.keys, out, sid="5e", floor=0, gate=gate, digest="d", ts=1.0, again=again))

    def run(self, invocation: Invocation[T]) -> T:
        script = invocation.script
        return script.read(self.client.eval(script.source, len(invocation.keys), *invocation.keys, *invocation.args))

    def hold(self, holder: str = "one", *, registry: bool = True) -> None:
        self.client.set(self.keys.lease("bob"), holder, ex=180)
        if registry:
            self.client.set(self.keys.registry("bob"), "{}", ex=180)

    def write(self, record: object) -> None:
        """What stands where it is written how far bob was read."""
        value = record if isinstance(record, bytes) else json.dumps(record).encode()
        self.client.set(self.keys.read("bob"), value)

    def ids(self) -> list[str]:
        return [at.decode() for at, _ in self.client.xrange(self.stream)]

    def everything(self) -> dict[bytes, bytes]:
        return {key: self.client.dump(key) for key in self.client.scan_iter(f"{self.keys.prefix}:*", 1000)}


@pytest.fixture
def box(server: Store, prefix: str) -> Iterator[Box]:
    with server.client() as client:
        yield Box(client, prefix)


def test_beyond_the_bound_nothing_happens(box: Box) -> None:
    """The 2,001st is told how many wait and since when; what was sent before is there, and known by its id."""
    box.fill(MAXLEN - 1)
    last = box.send("last")
    assert (last.verdict, last.waiting) == ("sent", None)
    before = box.everything()
    full = box.send("one more")
    assert full == ("busy", "", 0, False, 0, 0, (MAXLEN, 0.001))
    assert box.everything() == before
    assert box.send("last")[:2] == ("again", last.entry)
    box.client.xdel(box.stream, "1-0")
    assert box.send("one more").n == 2


@pytest.mark.parametrize(
    ("holder", "registry", "record", "verdict"),
    [
        (None, False, None, "busy"),
        (None, False, {"p": "1-0"}, "sent"),
        (None, False, {"p": "1-0", "b": "one"}, "sent"),
        (None, False, {"p": f"0-{2**64 - 1}", "h": "one", "r": "1000-0"}, "busy"),  # on a disk that may be anywhere
        (None, False, {"b": "one", "r": "1000-0"}, "busy"),
        ("one", True, None, "busy"),
        ("one", True, {"h": "one", "r": "1-0"}, "sent"),
        ("one", False, {"h": "one", "r": "1-0"}, "sent"),
        ("one", True, {"h": "one", "r": "0-0", "p": "1000-0"}, "busy"),  # it says so itself
        ("one", True, {"h": "one", "p": "1-0"}, "sent"),  # of an earlier version
        ("one", True, {"h": "two", "r": "1000-0"}, "busy"),
        ("one", True, {"h": "two", "r": "1000-0", "p": "1-0"}, "sent"),
        (None, True, None, "sent"),  # a 0.1 program holds the name
    ],
)
def test_what_may_be_pushed_out(
    box: Box, holder: str | None, registry: bool, record: dict[str, str] | None, verdict: str
) -> None:
    """Of a hosted name what its holder says it has received, of another what was read; of 0.1's as it always was."""
    box.fill()
    if holder is not None:
        box.hold(holder, registry=registry)
    elif registry:
        box.client.set(box.keys.registry("bob"), "{}", ex=180)
    if record is not None:
        box.write(record)
    ids = box.ids()
    sent = box.send()
    assert sent.verdict == verdict
    assert sent.held == (holder is not None or registry)
    if verdict == "busy":
        assert box.ids() == ids
    elif holder is None and registry:
        assert MAXLEN <= len(box.ids()) <= MAXLEN + 100
    else:
        assert box.ids() == [*ids[1:], sent.entry]


def test_one_goes_out_for_one_that_comes_in_up_to_where_it_was_received(box: Box) -> None:
    box.fill(MAXLEN + 3)  # 0.1 programs leave some more
    box.hold()
    box.write({"h": "one", "r": "5-0"})
    sent = [box.send().entry for _ in range(5)]
    assert box.send().verdict == "busy"
    assert box.ids() == [*(f"{k}-0" for k in range(6, MAXLEN + 4)), *sent]
    box.write({"h": "one", "r": "7-0"})
    assert [box.send().verdict for _ in range(3)] == ["sent", "sent", "busy"]


def test_what_a_store_has_lost_pushes_out_what_was_received_and_comes_in_all_the_same(box: Box) -> None:
    """Else a mailbox grows with each failover, and all of it is read again at the next."""
    box.fill()
    box.hold()
    box.write({"h": "one", "r": "5-0"})
    sent = [box.send(again=True).entry for _ in range(5)]
    assert box.ids() == [*(f"{k}-0" for k in range(6, MAXLEN + 1)), *sent]
    more = box.send(again=True)
    assert more.verdict == "sent"
    assert box.ids() == [*(f"{k}-0" for k in range(6, MAXLEN + 1)), *sent, more.entry]
    assert box.send().verdict == "busy"


HOSTILE: list[Any] = [
    b"",
    b"not JSON",
    b"\xff\xfe",
    b"null",
    b"1",
    b'"1-0"',
    b"[]",
    b"[" * 100_000,
    b'{"p":' * 5_000,
    [1, 2],
    {},
    {"p": 5},
    {"p": None, "r": None},
    {"p": ["1-0"], "h": ["one"], "r": {}},
    {"p": "1"},
    {"p": "1-0-1"},
    {"p": "-"},
    {"p": " 1-0"},
    {"p": "1-0\n"},
    {"p": "+"},
    {"p": "0x10-0"},
    {"p": "9" * 100_000 + "-0"},
    {"p": f"{2**64 - 1}-{2**64 - 1}"},  # the stream has not come so far
    {"h": "one", "r": f"{2**63}-0"},
    {"p": "1-0", "x": "x" * READ_RECORD},
]


@pytest.mark.parametrize("hosted", [True, False])
@pytest.mark.parametrize("record", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_stands_in_the_read_record(box: Box, record: Any, hosted: bool) -> None:
    """It makes no room, breaks no send, and a ping as little."""
    box.fill()
    if hosted:
        box.hold()
    box.write(record)
    assert box.send().verdict == "busy"
    assert box.run(pinging.ping(box.keys, "bob", ("from", "alice"))) == (MAXLEN, 0.001)
    assert len(box.ids()) == MAXLEN


def test_a_received_position_that_is_none_leaves_the_read_one(box: Box) -> None:
    box.fill()
    box.hold()
    unsound: list[Any] = [5, [], "x", None]
    for received in unsound:
        box.write({"h": "one", "r": received, "p": "1000-0"})
        assert box.send().verdict == "sent"


@pytest.mark.parametrize("key", ["lease", "read", "registry"])
def test_keys_of_a_wrong_type(box: Box, key: str) -> None:
    """They tell nothing, and break nothing: there is no room, and below the bound there is."""
    box.client.hset(getattr(box.keys, key)("bob"), "a", "b")
    assert box.send().verdict == "sent"
    box.client.delete(box.stream)
    box.fill()
    assert box.send().verdict == ("sent" if key == "registry" else "busy")


def test_a_mailbox_that_is_no_stream_is_an_error_that_leaves_nothing(box: Box) -> None:
    box.client.set(box.stream, "x")
    before = box.everything()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        box.send()
    assert box.everything() == before


def test_a_stream_that_was_made_anew_is_not_trimmed_by_what_was_said_of_the_one_before(box: Box) -> None:
    """Its entries are below what was read then, and nobody has seen them."""
    box.fill()
    box.hold()
    box.write({"h": "one", "p": "5000-0", "r": "5000-0"})
    assert box.send().verdict == "busy"
    assert len(box.ids()) == MAXLEN


def test_broadcasts_go_on_beyond_the_bound(box: Box) -> None:
    """The group is for all; what it keeps is bounded as ever."""
    with box.client.pipeline(transaction=False) as pipe:
        for k in range(1, MAXLEN + 200):
            pipe.xadd(box.keys.group, {"from": "old", "msg": "x"}, id=f"{k}-0")
        pipe.execute()
    assert box.send(target="*").verdict == "sent"
    assert MAXLEN <= box.client.xlen(box.keys.group) <= MAXLEN + 100
    assert box.client.ttl(box.keys.group) == -1


@given(IDS, IDS)
def test_ids_are_compared_as_the_store_does(server: Store, a: str, b: str) -> None:
    """Both halves have 64 bits, which Lua's numbers have not."""
    part = (Path(leases.__file__).parent / "parts" / "stream.lua").read_text().replace("KEY.stream", "KEYS[1]")
    with server.client() as client:
        before: Any = client.eval(f"{part}\nreturn is_before(ARGV[1], ARGV[2]) and 1 or 0", 0, a, b)
    assert bool(before) == (entry_key(a) < entry_key(b))


@given(IDS)
def test_the_id_after_is_the_one_whose_id_before_it_is(at: str) -> None:
    after = entry_after(at)
    greatest = f"{2**64 - 1}-{2**64 - 1}"
    assert at == greatest == after or (entry_key(after) > entry_key(at) and entry_before(after) == at)


# --- what was read ---


def position(box: Box, instance: str, read: str, received: str, ordinal: int) -> leases.Noted:
    record = json.dumps({"p": read, "h": instance, "r": received}).encode()
    return box.run(
        leases.position(
            box.keys, "bob", instance=instance, record=record, read_to=read, received=Position(received, ordinal)
        )
    )


def test_what_was_read_is_removed_and_nothing_else(box: Box) -> None:
    box.fill(10)
    box.hold()
    assert position(box, "one", "4-0", "7-0", 7) == (True, True)
    assert box.ids() == [f"{k}-0" for k in range(5, 11)]
    assert position(box, "one", "10-0", "10-0", 10) == (True, True)
    assert (box.ids(), box.client.xinfo_stream(box.stream)["entries-added"]) == ([], 10)
    assert box.send().verdict == "sent"


def test_who_may_not_write_removes_nothing(box: Box) -> None:
    """Another holds the name, and what the first has read since it lost it is not said."""
    box.fill(10)
    box.hold("two")
    box.write({"h": "two"})
    assert position(box, "one", "4-0", "7-0", 7) == (False, False)
    assert len(box.ids()) == 10


@pytest.mark.parametrize(("received", "ordinal"), [("11-0", 10), ("10-0", 11)])
def test_nothing_is_removed_from_a_stream_that_went_back(box: Box, received: str, ordinal: int) -> None:
    """By its last id, or by its count: what stands there below the reader's place was never read."""
    box.fill(10)
    box.hold()
    assert position(box, "one", "9-0", received, ordinal) == (True, True)
    assert len(box.ids()) == 10


@pytest.mark.parametrize("kind", ["none", "string"])
def test_a_position_is_written_where_no_stream_is(box: Box, kind: str) -> None:
    box.hold()
    if kind == "string":
        box.client.set(box.stream, "x")
    assert position(box, "one", "9-0", "9-0", 9) == (True, True)
    assert box.client.exists(box.keys.read("bob"))


# --- access lists and time ---


@pytest.fixture
def of_earlier_version(server: Store, prefix: str) -> Iterator[Box]:
    """An account that may do what the version before could, as docker's."""
    line = (Path(__file__).parents[2] / "docker" / "redis.acl").read_text().splitlines()[-1]
    commands = [word for word in line.split() if word[0] in "+-" and word not in ("+xlen", "+xtrim")]
    with server.client() as admin:
        anyone: Any = admin
        anyone.execute_command("ACL", "SETUSER", prefix, "on", ">secret", f"~{prefix}:*", *commands)
        with redis.Redis(unix_socket_path=server.socket, username=prefix, password="secret", protocol=2) as client:
            yield Box(client, prefix)
        anyone.execute_command("ACL", "DELUSER", prefix)


def test_an_access_list_of_an_earlier_version(of_earlier_version: Box) -> None:
    """Everything goes on; what was read stays until it is pushed out."""
    box = of_earlier_version
    assert box.send().verdict == "sent"
    box.client.delete(box.stream)
    box.fill()
    box.hold()
    assert box.send().verdict == "busy"
    assert position(box, "one", "9-0", "9-0", 9) == (True, True)
    assert len(box.ids()) == MAXLEN
    assert box.send().verdict == "sent"


def test_a_mailbox_ends_thirty_days_after_its_last_entry_and_never_while_it_is_held(box: Box) -> None:
    """So does the word of how far it was read."""

    def ends(key: str, ttl: int) -> bool:
        return ttl - 60 < int(box.client.ttl(key)) <= ttl

    assert STREAM_TTL == READ_TTL == 30 * 86400
    box.send()
    assert ends(box.stream, STREAM_TTL)
    renewed = leases.renew(box.keys, "bob", instance="one", ttl=180, entry=b"", now=1.0)
    hosted = leases.host(
        box.keys,
        "bob",
        instance="one",
        ttl=180,
        entry=b"",
        now=1.0,
        takeover=False,
        nonce="0" * 32,
        cursor="0-0",
    )
    asked = pinging.ping(box.keys, "bob", ("from", "alice"))
    steps: list[Invocation[Any]] = [hosted, renewed, asked]
    for again in steps:
        box.client.expire(box.stream, 5)
        box.run(again)
        assert ends(box.stream, STREAM_TTL)
    box.write({"h": "one"})
    box.run(renewed)
    assert ends(box.keys.read("bob"), READ_TTL)
