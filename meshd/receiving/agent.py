"""One hosted agent at run time: its parts, and what the rest of the daemon asks of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from meshd.core import queue
from meshd.core.agent import AgentCore
from meshd.core.effects import Effect, Pong, Wake
from meshd.core.lease import Lease
from meshd.core.ledger import Ends
from meshd.core.message import Ping, is_entry_id
from meshd.core.names import Keys
from meshd.core.records import Batch, Loaded, Moved, Read, Record
from meshd.disk.hosted import Hosted
from meshd.disk.journal import Journal
from meshd.disk.legacy import Left
from meshd.disk.notify import NotifyLog
from meshd.disk.worker import DiskWorker
from meshd.errors import MeshError, StoreError
from meshd.observing.background import Background
from meshd.observing.events import EventHub
from meshd.observing.outage import Troubles
from meshd.receiving.backlog import Backlog
from meshd.receiving.changes import Changes
from meshd.receiving.executor import Executor
from meshd.receiving.handover import Handover
from meshd.receiving.health import Health
from meshd.receiving.notify_queue import NotifyQueue
from meshd.receiving.reader import Reader
from meshd.receiving.reminders import Reminders
from meshd.receiving.signal import Signal
from meshd.sending.outbox import Outbox
from meshd.settings import Settings
from meshd.store.commands import Commands
from meshd.store.endpoint import Endpoint
from meshd.store.scripts.leases import counts
from meshd.system.clock import now
from meshd.waking.waker import Waker

log = logging.getLogger("meshd.agent")

_LOOK = 1.0  # seconds of a send that are given to the question what was there before it
# So many entries that were received are told to the store at once: there they make room for as many.
TELL_EVERY = 256


class LeaseKeeper(Protocol):
    """Who holds names for agents: asked when it must be known whether a name is this daemon's."""

    async def acquire(self, agent: Agent) -> bool:
        """Whether the name is ours, after asking. If not, the agent is let go. Raises `StoreError`, `Full`."""
        ...

    async def hold(self, agent: Agent) -> None:
        """Be sure of the lease, asking if need be. Raises `NotAllowed`, `NotFound`, `StoreError`, `Full`."""
        ...

    async def check(self, agent: Agent, ping: Ping) -> bool:
        """Somebody says that the name was taken over: whether it is ours all the same. The ping is answered."""
        ...


class Shared(NamedTuple):
    """What all agents of a daemon use together. `alone`: no other daemon can reach the store."""

    settings: Callable[[], Settings]
    keys: Keys
    endpoint: Endpoint
    commands: Commands
    outbox: Outbox
    events: EventHub
    disk: DiskWorker
    troubles: Troubles
    changes: Changes
    keeper: LeaseKeeper
    alone: bool


class Agent:
    """A name whose mail this daemon receives. `changed`: something about it has changed."""

    def __init__(self, name: str, hosted: Hosted, journal: Journal, notify: NotifyLog, shared: Shared) -> None:
        self.name = name
        self.hosted = hosted
        self.core = AgentCore(name, shared.keys, queue.BOUNDS)
        self.lease = Lease(alone=shared.alone)
        self.leasing = asyncio.Lock()  # one question about the lease at a time
        self.changed = Signal()
        self.handovers: list[Handover] = []
        self.listening = 0
        self.live = False  # an MCP session goes by this name now
        self.monitored = False
        self.gone: MeshError | None = None
        self.legacy: Left | None = None  # what agent-mesh 0.1 left of a name that was never hosted here
        self.health = Health(name, shared.events, shared.troubles)
        self.waker = Waker(name, self.core.inbox.unread, shared.events)
        self._shared = shared
        self.notify = NotifyQueue(notify, shared.disk, self.health)
        self._executor = Executor(self.core, journal, self.notify, shared.disk, self.health, self._carry, self._told)
        self.reader = Reader(self, shared)
        self.reminders = Reminders(self, shared)
        self.execute = self._executor.execute
        self.insist = self._executor.insist
        self.backlog = Backlog(self.core.inbox, self._executor)
        self._told_read: Moved | None = None
        self._told_received = 0  # index of the position that the store was told last, or is about to be
        self._background = Background(log, {"agent": name})
        self._reading: asyncio.Task[None] | None = None

    # --- life ---

    def load(self) -> None:
        """Fold the journal. Blocks; raises `ConfigError`, `OSError`."""
        self._executor.load()

    def start(self) -> None:
        """Receive from now on."""
        self._executor.start()
        self.reminders.wind()
        self._reading = self._background.start(self.reader.run(), f"agent {self.name}")

    @property
    def is_running(self) -> bool:
        """Whether it receives, or will again by itself."""
        return self._reading is not None and not self._reading.done()

    def stuck(self, mono: float) -> bool:
        """Whether it has stopped to receive, and will not by itself. `mono` in monotonic seconds."""
        return self._reading is not None and (self._reading.done() or self.health.stalled(mono))

    async def end(self, why: MeshError) -> None:
        """Receive no more. Whoever waits for its mail, or for a step, is told `why`; nothing of it runs afterwards."""
        self.gone = why
        self.waker.close()
        self.health.end()
        await self._background.end()
        await self.reminders.end()
        await self._executor.end(why)
        self.changed.send()

    @contextlib.contextmanager
    def attached(self, *, hidden: bool = False) -> Iterator[None]:
        """Somebody is a live session of the agent for as long as this lasts, unless it is `hidden`."""
        if hidden:
            yield
            return
        self.listening += 1
        self._shared.changes.shown(self)
        try:
            yield
        finally:
            self.listening -= 1
            self._shared.changes.shown(self)

    def check_hosted(self) -> None:
        """Raises the reason why this name is not hosted here any more: whoever waits for its mail waits in vain."""
        if self.gone is not None:
            raise type(self.gone)(self.gone.message, self.gone.hint)

    @property
    def held_up(self) -> str | None:
        """Why its mail cannot be had now, although it is there: the disk takes nothing."""
        return self._executor.held_up.message if self._executor.held_up is not None else None

    # --- the lease ---

    @property
    def holds_lease(self) -> bool:
        """Whether mail may be taken in now."""
        return self.lease.may_receive(now())

    async def may_receive(self) -> bool:
        """Whether mail may be taken in, asking if that is not known. Raises `StoreError`, `Full`."""
        return self.holds_lease or await self._shared.keeper.acquire(self)

    @property
    def is_sure(self) -> bool:
        """Whether its mail may be handed out now, with no question before."""
        return self.lease.may_hand_out(now(), reachable=self._shared.commands.reachable)

    async def ensure_held(self) -> None:
        """Before mail is handed out, or taken as read. Raises `NotAllowed`, `NotFound`, `StoreError`."""
        if not self.is_sure:
            await self._shared.keeper.hold(self)
        self.check_hosted()

    async def ensure_confirmable(self) -> None:
        """Before a hand-over is confirmed. Raises as `ensure_held` does."""
        if not self.lease.may_confirm(now(), reachable=self._shared.commands.reachable):
            await self.ensure_held()

    async def heard_of_move(self, ping: Ping) -> bool:
        """Somebody says that the name was taken over: whether it is ours all the same."""
        return await self._shared.keeper.check(self, ping)

    async def ends(self) -> Ends | None:
        """Where its streams end in the store now: what stands there answers nothing that is sent from now on.

        None if the store does not tell soon. It costs a send that expects a reply a second round trip: it belongs into
        the entry that is on the disk before the message leaves, for an answer may be here before the store's own.
        """
        streams = (self._shared.keys.inbox(self.name), self._shared.keys.group)
        asked = [self._shared.commands.script(counts(stream), timeout=_LOOK) for stream in streams]
        try:
            private, group = (found.info.last for found in await asyncio.gather(*asked))
        except StoreError:
            return None
        return Ends(private, group) if is_entry_id(private) and is_entry_id(group) else None

    async def legacy_taken(self) -> None:
        """What agent-mesh 0.1 left is in the journal: its files are marked as such."""
        left, self.legacy = self.legacy, None
        if left is not None:
            await self._shared.disk.run(left.mark_taken)

    def handed_back(self, handover: Handover) -> None:
        """This hand-over has ended, the one way or the other."""
        self.handovers.remove(handover)
        if not self.handovers:
            self.changed.send()

    # --- what is shown of it ---

    @property
    def wakes(self) -> list[str]:
        """How this agent can be told of mail, the surest first. `session`: somebody listens at this moment."""
        wakes = self.waker.ladder.ladder()
        if self.listening:
            wakes.append("session")
        wakes.append("notify")
        return wakes

    @property
    def sessions(self) -> int:
        """How many live clients are attached."""
        return self.listening + self.live

    # --- what was decided ---

    def _carry(self, effect: Effect) -> None:
        match effect:
            case Wake(senders):
                self.waker.mail(awaited=self.changed.is_awaited or self.notify.written.is_awaited)
                unread = len(self.core.inbox.unread)
                self._shared.events.publish("agent.wake", agent=self.name, senders=sorted(senders), unread=unread)
            case Pong(ping):
                self._background.start(self.answer(ping), f"{self.name}: pong")

    async def answer(self, ping: Ping) -> None:
        """Answer a ping. That it was not answered harms nobody but who waits for it."""
        fields = ("from", self.name, "pong", "1", "session", "1" if self.sessions else "0")
        try:
            await self._shared.outbox.pong(ping.nonce, fields)
        except StoreError as error:
            log.debug("%s: a pong was not sent: %s", self.name, error.message, extra={"agent": self.name})

    def _told(self, records: Sequence[Record]) -> None:
        """These are on the disk, and are the state now."""
        changes, inbox = self._shared.changes, self.core.inbox
        self.changed.send()
        if self.core.ledger.entries or self.reminders.wound:
            self.reminders.wind()
        unread_changed = False
        for record in records:
            match record:
                case Batch():
                    unread_changed = unread_changed or bool(record.messages)
                    self._received(record)
                case Read() | Moved() | Loaded():
                    unread_changed = True
                    self.waker.read(len(inbox.unread))
            if isinstance(record, Batch | Loaded) and record.lost:
                self._shared.events.publish("message.lost", agent=self.name, count=record.lost)
            if record.__struct_config__.tag in ("read", "pinged", "closed"):
                self._shared.events.publish(f"agent.{record.__struct_config__.tag}", agent=self.name)
        if unread_changed:
            changes.shown(self)
        read, received = self.core.read_record(), inbox.position.index
        if read != self._told_read or not 0 <= received - self._told_received < TELL_EVERY:
            self._told_read, self._told_received = read, received
            changes.read(self)

    def _received(self, batch: Batch) -> None:
        if batch.messages:
            self.health.last_received = batch.now
        for message in batch.messages:
            self._shared.events.publish(
                "message.received", agent=self.name, id=message.id, sender=message.sender, kind=message.kind
            )
