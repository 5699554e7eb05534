"""Random histories of a mailbox in a real store: what is sent stays until its agent has it, wherever that is hosted.

The scripts, the agents' cores and what goes along with a name are the real ones; the bound is a small one.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.core.agent import AgentCore
from meshd.core.clock import Wall
from meshd.core.effects import Commit, Effect
from meshd.core.inbox import StreamInfo
from meshd.core.message import decode, entry_key
from meshd.core.names import Keys
from meshd.core.wire import Outgoing
from meshd.hosting import moving
from meshd.hosting.moving import Moving
from meshd.receiving.agent import Agent
from meshd.receiving.backlog import Backlog
from meshd.receiving.executor import Executor
from meshd.store.commands import Commands
from meshd.store.scripts import leases, sending
from meshd.store.scripts.script import Invocation, Script
from tests.helper import Store

T = TypeVar("T")

BOUND = 6
NOW = Wall(1_700_000_000.0)
SEND: Script[sending.SendResult] = Script(
    "send",
    sending._Keys,
    sending._Args,
    sending._read,
    constants={**sending.CONSTANTS, "MAXLEN": BOUND},
    parts=("stream", "room"),
)


class Client:
    """What `Moving` and the scripts need of `Commands`: each call goes out by itself."""

    def __init__(self, client: redis.Redis) -> None:
        self.client: Any = client
        client.response_callbacks.clear()  # replies as they come

    async def script(self, invocation: Invocation[T]) -> T:
        script = invocation.script
        return script.read(
            self.client.execute_command("EVAL", script.source, len(invocation.keys), *invocation.keys, *invocation.args)
        )

    async def call(self, *command: Any, read: Callable[[Any], Any] = lambda reply: reply) -> Any:
        return read(self.client.execute_command(*command))


class Daemon:
    """One that may hold bob: his core, which outlives it on a disk, and what it says of him to the store."""

    def __init__(self, name: str, mailbox: Mailbox) -> None:
        self.name = name
        self.mailbox = mailbox
        self.core = AgentCore("bob", mailbox.keys)
        self.moving = Moving(mailbox.keys, cast(Commands, mailbox.client), name)
        self.untold: set[str] = set()  # what was read here since the store was told
        backlog = Backlog(self.core.inbox, cast(Executor, None))  # nothing lies on a disk
        parts = {"core": self.core, "execute": self._execute, "legacy": None, "legacy_taken": self._legacy_taken}
        self.agent = cast(Agent, SimpleNamespace(name="bob", backlog=backlog, **parts))

    async def _legacy_taken(self) -> None:
        """Nothing was left by 0.1."""

    async def _execute(self, decide: Callable[[], list[Effect]]) -> None:
        for effect in decide():
            if isinstance(effect, Commit):
                for record in effect.records:
                    self.core.apply(record)

    async def receive(self, count: int) -> None:
        """As a reader does: the counts with each read, so that what is missing is found at once."""
        inbox, box = self.core.inbox, self.mailbox
        info = await box.info()
        raw = await box.client.call("XRANGE", box.stream, f"({inbox.position.at}", "+", "COUNT", count)
        entries = [decode(at, fields, box.keys, 10_000) for at, fields in raw or []]
        last = raw[-1][0].decode() if raw else inbox.position.at
        await self._execute(lambda: self.core.receive(entries, last, NOW, info))

    async def tell(self, *, given_up: bool = False) -> None:
        inbox = self.core.inbox
        if (await self.moving.write_position(self.agent, given_up=given_up)).written:
            self.mailbox.told = (self.name, inbox.position.at, inbox.read_position().at)
            self.untold = set()

    @property
    def received(self) -> tuple[int, int]:
        return entry_key(self.core.inbox.position.at)


class Mailbox:
    """The mailbox of bob, three daemons of which one may hold it, and what became of each message that was sent."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = Client(client)
        self.keys = Keys(f"t{secrets.token_hex(4)}")
        self.stream = self.keys.inbox("bob")
        self.daemons = [Daemon(name, self) for name in ("one", "two", "three")]
        self.holder: Daemon | None = None
        self.crashed: Daemon | None = None
        self.asleep: list[Daemon] = []  # those that do not know yet that another one has the name
        self.overtaken = False
        self.may_come_again: set[str] = set()
        self.old_holds = False  # a 0.1 program
        self.sent: dict[str, str] = {}  # entry id -> message id
        self.read: set[str] = set()
        self.trimmed = 0  # by 0.1 programs, before its agent had it
        self.notices_trimmed = False  # a `moved` notice, of which the store's arithmetic cannot know that it was none
        self.told = ("", "0-0", "0-0")  # who told last, and how far it has received and read
        self.ids = map("m{}".format, itertools.count())

    async def info(self) -> StreamInfo:
        return (await self.client.script(leases.counts(self.stream))).info

    async def entries(self) -> list[str]:
        return [at.decode() for at, _ in await self.client.call("XRANGE", self.stream, "-", "+")]

    def is_missed(self, at: str) -> bool:
        """Whether its agent would miss this entry if it were not in the store."""
        if at not in self.sent or self.sent[at] in self.read:
            return False
        return self.holder is None or entry_key(at) > self.holder.received

    def _pushed_out(self, gone: list[str]) -> None:
        """A 0.1 program's send, or one to a 0.1 program, has taken these entries."""
        self.trimmed += sum(map(self.is_missed, gone))
        self.notices_trimmed |= any(at not in self.sent for at in gone)

    # --- what happens ---

    async def send(self, sender: str) -> None:
        message_id, before = next(self.ids), await self.entries()
        out = Outgoing(message_id, sender, "bob", "hello", private=True)
        gate = sending.Gate(0, enforce=False)
        made = sending.send(self.keys, out, sid="5e", floor=0, gate=gate, digest="d", ts=1.0)
        sent = await self.client.script(made._replace(script=SEND))
        after = await self.entries()
        gone = [at for at in before if at not in after]
        if sent.verdict == "busy":
            who, received, read = self.told
            floor = received if self.holder is not None and self.holder.name == who else read
            assert after == before
            assert sent.waiting is not None
            assert sent.waiting.entries == len(before) >= BOUND
            assert entry_key(before[0]) > entry_key(floor)
            assert not self.old_holds
            return
        self.sent[sent.entry] = message_id
        assert after[-1] == sent.entry
        if self.old_holds:
            self._pushed_out(gone)
        else:
            assert len(gone) <= 1
            assert not any(map(self.is_missed, gone))

    async def send_as_0_1(self, count: int) -> None:
        """Trims to the bound, whoever holds the name."""
        for _ in range(count):
            before, message_id = await self.entries(), next(self.ids)
            fields = ("from", "old", "msg", "x", "ts", "1", "id", message_id)
            at = await self.client.call("XADD", self.stream, "MAXLEN", BOUND, "*", *fields)
            self.sent[at.decode()] = message_id
            after = await self.entries()
            gone = [at for at in before if at not in after]
            self._pushed_out(gone)

    async def old_program(self, *, holds: bool) -> None:
        """A 0.1 program registers, or ends. It reads for itself, and tells nobody."""
        if self.holder is None:
            self.old_holds = holds
            key = self.keys.registry("bob")
            await self.client.call(*(("SET", key, "{}", "EX", 180) if holds else ("DEL", key)))

    async def receive(self, count: int) -> None:
        if self.holder is not None:
            await self.holder.receive(count)

    async def hand_out(self, which: list[int]) -> None:
        """Any of the unread messages are read, in any order."""
        if self.holder is not None:
            core = self.holder.core
            unread = list(core.inbox.unread)
            ids = list({unread[k % len(unread)]: None for k in which}) if unread else []
            await self.holder.agent.execute(lambda: core.mark_read(ids))
            assert not self.read & set(ids) - self.may_come_again
            self.read.update(ids)
            self.holder.untold.update(ids)

    async def tell(self) -> None:
        if self.holder is not None:
            before = await self.entries()
            await self.holder.tell()
            after = await self.entries()
            gone = [at for at in before if at not in after and at in self.sent]
            assert {self.sent[at] for at in gone} <= self.read

    async def host(self, number: int, *, answers: bool = True) -> None:
        """By a daemon, taking the name over from the one that has it. Whoever crashed comes back first."""
        daemon, before = self.crashed or self.daemons[number], self.holder
        if self.old_holds or daemon is before:
            return
        if daemon in self.asleep:
            await self.wake(daemon)
        hosted = leases.host(
            self.keys,
            "bob",
            instance=daemon.name,
            ttl=180,
            entry=b"{}",
            now=1.0,
            takeover=True,
            nonce="0" * 32,
            cursor="0-0",
        )
        granted = await self.client.script(hosted)
        assert isinstance(granted, leases.Granted)
        read, left = moving.read_record(granted.read), granted.left
        if before is not None and answers:
            await before.tell()
            await before.agent.execute(before.core.give_losses)
            await before.moving.give_left(before.agent, tell=True)
            read, left = await daemon.moving.look("bob")
        elif before is not None:
            self.asleep.append(before)
            self.overtaken = True
            self.may_come_again |= before.untold
        await daemon.moving.move_in(daemon.agent, read, granted, Moving.place_of(daemon.agent))
        if left:
            await daemon.moving.take_left(daemon.agent)
        self.holder, self.crashed = daemon, None
        if read is None or read.holder != daemon.name:
            await daemon.tell()

    async def overtake(self, number: int) -> None:
        """A takeover from a daemon that does not answer."""
        await self.host(number, answers=False)

    async def wake(self, daemon: Daemon | None = None) -> None:
        """It finds that the name was taken, and gives what only its disk has."""
        if self.asleep:
            daemon = daemon or self.asleep[0]
            self.asleep.remove(daemon)
            await daemon.tell()
            await daemon.moving.give_left(daemon.agent, tell=True)
            if self.holder is not None and await self.client.call("EXISTS", self.keys.left("bob")):
                await self.holder.moving.take_left(self.holder.agent)

    async def give_up(self) -> None:
        if self.holder is not None:
            await self.holder.tell(given_up=True)
            await self.holder.agent.execute(self.holder.core.give_losses)
            await self.holder.moving.give_left(self.holder.agent, tell=False)
            await self._end_lease()

    async def crash(self) -> None:
        """It dies without a word, and its lease runs out."""
        if self.holder is not None:
            self.crashed = self.holder
            await self._end_lease()

    async def _end_lease(self) -> None:
        self.holder = None
        await self.client.call("DEL", self.keys.lease("bob"), self.keys.registry("bob"))

    # --- what is left of it ---

    async def drain(self) -> None:
        """The first daemon has it in the end, with all that comes: what was sent was read, or is unread there."""
        await self.old_program(holds=False)
        for _ in range(len(self.asleep)):
            await self.wake()
        await self.host(0)
        await self.host(0)  # whoever crashed has come back first
        assert self.holder is self.daemons[0]
        while True:
            at = self.holder.received
            await self.receive(100)
            if at == self.holder.received:
                break
        unread = self.holder.core.inbox.unread
        missing = set(self.sent.values()) - self.read - set(unread)
        assert len(missing) <= self.trimmed
        lost = sum(daemon.core.inbox.losses.total for daemon in self.daemons)
        assert lost == 0 or self.trimmed or self.notices_trimmed or self.overtaken
        await self.client.call("DEL", *await self.client.call("KEYS", f"{self.keys.prefix}:*"))


senders = st.sampled_from(["alice", "carol"])
ours = st.one_of(
    st.tuples(st.just("send"), senders),
    st.tuples(st.just("send"), senders),
    st.tuples(st.just("send"), senders),
    st.tuples(st.just("receive"), st.integers(1, 8)),
    st.tuples(st.just("receive"), st.integers(1, 8)),
    st.tuples(st.just("hand_out"), st.lists(st.integers(0, 5), min_size=1, max_size=4)),
    st.just(("tell",)),
    st.just(("tell",)),
    st.tuples(st.just("host"), st.integers(0, 2)),
    st.tuples(st.just("overtake"), st.integers(0, 2)),
    st.just(("wake",)),
    st.just(("give_up",)),
    st.just(("crash",)),
)
with_0_1 = st.one_of(
    ours,
    ours,
    st.tuples(st.just("send_as_0_1"), st.integers(1, BOUND + 2)),
    st.tuples(st.just("old_program"), st.booleans()),
)


async def _run(client: redis.Redis, history: list[tuple[Any, ...]]) -> None:
    box = Mailbox(client)
    for what, *how in history:
        if what == "old_program":
            await box.old_program(holds=how[0])
        else:
            await getattr(box, what)(*how)
    await box.drain()


# It slept while its name was taken twice, and what it had unread was read meanwhile, and removed.
TWO_TAKEOVERS: list[tuple[Any, ...]] = [
    ("host", 0),
    ("send", "alice"),
    ("receive", 5),
    ("overtake", 1),
    ("receive", 5),
    ("hand_out", [0]),
    ("tell",),
    ("host", 2),
    ("wake",),
    ("hand_out", [0]),
]


# What was pushed out was on the disk of one that sleeps; another one had it as well, and comes back before.
ON_A_SLEEPER_S_DISK: list[tuple[Any, ...]] = [
    *[("send", "alice")] * 4,
    ("host", 0),
    ("receive", 1),
    ("host", 1),
    ("receive", 1),
    ("host", 0),
    ("send", "alice"),
    ("overtake", 2),
    ("receive", 1),
    ("host", 1),
]


@settings(max_examples=150)
@example(TWO_TAKEOVERS)
@example(ON_A_SLEEPER_S_DISK)
@given(st.lists(ours, min_size=10, max_size=60))
def test_what_was_sent_is_never_pushed_out_before_its_agent_has_it(
    server: Store, history: list[tuple[Any, ...]]
) -> None:
    """Wherever the name is hosted, and whoever crashes: nothing is missing, and nothing is called lost."""
    with server.client() as client:
        asyncio.run(_run(client, history))


# What a 0.1 program pushes out first is the notice of the takeover.
TRIMMED_NOTICE: list[tuple[Any, ...]] = [
    ("host", 0),
    ("host", 1),
    *[("send", "alice")] * 3,
    ("give_up",),
    ("send_as_0_1", 3),
]


@settings(max_examples=150)
@example(TRIMMED_NOTICE)
@example([*[("send", "alice")] * 6, ("host", 0), ("receive", 1), ("send_as_0_1", 1), ("overtake", 1), ("receive", 1)])
@given(st.lists(with_0_1, min_size=10, max_size=60))
def test_beside_programs_that_trim_nothing_else_is_missing(server: Store, history: list[tuple[Any, ...]]) -> None:
    """A 0.1 program's sends push out what they always did; ours never do, but where it holds the name."""
    with server.client() as client:
        asyncio.run(_run(client, history))
