"""One hosted agent at run time: its reader, its timer, and the executor of what its core decides."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from meshd.core.agent import AgentCore, CheckLease, Effect, Journal, Pong, Quarantine, Wake
from meshd.core.backoff import Backoff
from meshd.core.ledger import Escalate, Reping
from meshd.core.message import Malformed, Message, Ping, decode, entry_key
from meshd.core.names import Keys
from meshd.core.records import Batch, Moved, Read, Record
from meshd.core.wire import Outgoing
from meshd.disk import quarantine
from meshd.disk.hosted import Hosted
from meshd.disk.journal import Journal as JournalFile
from meshd.disk.journal import JournalGone
from meshd.disk.notify import NotifyLog
from meshd.disk.pace import Pace
from meshd.disk.worker import DiskWorker
from meshd.errors import Full, MeshError, StoreBusy, StoreDown, StoreError, UsageError
from meshd.observing.events import EventHub
from meshd.observing.outage import Troubles
from meshd.sending.outbox import Outbox
from meshd.settings import Settings
from meshd.store.commands import Commands
from meshd.store.endpoint import BLOCK, Endpoint
from meshd.store.link import Link
from meshd.waking.waker import Waker

log = logging.getLogger("meshd.agent")

READ_COUNT = 500
# Seconds that a reader may spend on one turn, far longer than any wait in it lasts: BLOCK, a reply, a backoff, a sync.
STALLED = 120.0


class Shared(NamedTuple):
    """What all agents of a daemon use together."""

    settings: Callable[[], Settings]
    keys: Keys
    endpoint: Endpoint
    commands: Commands
    outbox: Outbox
    events: EventHub
    disk: DiskWorker
    troubles: Troubles
    position_changed: Callable[[Agent], None]
    registry_changed: Callable[[Agent], None]
    holds: Callable[[Agent], bool]
    acquire: Callable[[Agent], Coroutine[Any, Any, bool]]
    check_lease: Callable[[Agent], Coroutine[Any, Any, None]]


class Agent:
    """A name whose mail this daemon receives.

    `lock` orders decisions: decide, write, apply, one after another. `waiters` are set when mail comes.
    """

    def __init__(self, name: str, hosted: Hosted, journal: JournalFile, notify: NotifyLog, shared: Shared) -> None:
        self.name = name
        self.hosted = hosted
        self.core = AgentCore(name, shared.keys)
        self.lock = asyncio.Lock()
        self.waiters: set[asyncio.Event] = set()
        self.listening = 0
        self.live = False  # an MCP session goes by this name now
        self.waker = Waker(name, self.core.inbox.unread.values, shared.events)
        self.monitored = False
        self.caught_up = asyncio.Event()
        self.trouble: str | None = None
        self.trouble_of_store = False  # then it is every agent's, while the store is down
        self.since = time.time()  # so long it receives, catches up, or is in trouble
        self.restarts = 0
        self.last_turn = time.monotonic()  # of the reader
        self.last_received = 0.0
        self.leased = False
        self.leasing = asyncio.Lock()
        self.renewed = time.time()  # when the lease was asked for that was then given; before the first: the start
        self.gone: MeshError | None = None
        self._journal = journal
        self._notify = notify
        self._shared = shared
        self._told_read: Moved | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._resending = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ---

    def load(self) -> None:
        """Fold the journal, and finish the notify log's last batch. Blocks; raises `ConfigError`, `OSError`."""
        records = self._journal.load()
        pace = Pace()
        for record in records:
            self.core.apply(record)
            pace()
        last = records[-1] if records else None
        self._notify.finish(*((_lines(last), last.offset) if isinstance(last, Batch) else ([], 0)))
        if self._journal.damaged:
            damaged = self._journal.damaged
            log.error("%s: %d damaged records in the journal, kept aside", self.name, damaged, extra=self._about)

    async def run(self) -> None:
        """Receive until cancelled, or until the name is held elsewhere: the one restart wrapper.

        A fault here harms no other agent.
        """
        backoff = Backoff()
        self._wind_timer()
        while True:
            self.last_turn = started = time.monotonic()
            try:
                if not self.leased and not await self._shared.acquire(self):
                    return
                self._start_resending()
                await self._receive()
                return
            except StoreError as error:
                self._say_trouble(error.message, of_store=isinstance(error, StoreDown | StoreBusy))
                self._shared.commands.check_now()
                await self._shared.commands.up.wait()
            except Exception:
                self.restarts += 1
                self._say_trouble("its reader failed and is started again; see the log", exc_info=True)
            if time.monotonic() - started > 60:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    def stalled(self, mono: float) -> bool:
        """Whether its reader should have come round by now, the store being up. `mono` in monotonic seconds."""
        return mono - self.last_turn > STALLED

    async def stop(self) -> None:
        """End what runs for this agent beside `run`, and close its files."""
        self.waker.close()
        self._shared.troubles.tell(self.name, None)
        if self._timer is not None:
            self._timer.cancel()
        async with self.lock:  # a step that has begun is finished
            for task in list(self._tasks):
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with self.lock:
            self._journal.close()
            self._notify.close()

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.create_task(work, name=f"{self.name}: {what}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error, extra=self._about)

    def _say_trouble(self, text: str, *, of_store: bool = False, exc_info: bool = False) -> None:
        self.trouble_of_store = of_store
        if self.trouble is None:
            self.since = time.time()
        if self.trouble != text:
            self.trouble = text
            self._shared.events.publish("agent.trouble", agent=self.name, text=text)
        # The store's own trouble is in the log as one line, of the store.
        self._shared.troubles.tell(self.name, None if of_store else text, exc_info=exc_info)

    def _well(self) -> None:
        """No trouble any more."""
        if self.trouble is not None:
            self.trouble = None
            self.since = time.time()
        self._shared.troubles.tell(self.name, None)

    def _set_caught_up(self, caught_up: bool) -> None:
        if caught_up != self.caught_up.is_set():
            self.since = time.time()
        (self.caught_up.set if caught_up else self.caught_up.clear)()

    @property
    def _about(self) -> dict[str, str]:
        """The fields by which a line of the log is found, where it has fields (meshd/service/journald.py)."""
        return {"agent": self.name}

    @property
    def held(self) -> bool:
        """Whether the name is this daemon's for sure, so that mail may be received for it."""
        return self._shared.holds(self)

    def wake_waiters(self) -> None:
        for waiter in self.waiters:
            waiter.set()

    def check_hosted(self) -> None:
        """Raises the reason why this name is not hosted here any more: whoever waits for its mail waits in vain."""
        if self.gone is not None:
            raise type(self.gone)(self.gone.message, self.gone.hint)

    @property
    def wakes(self) -> list[str]:
        """How this agent can be told of mail, the surest first. `session`: somebody listens at this moment."""
        return [*self.waker.ladder.ladder(), *(["session"] if self.listening else []), "notify"]

    @property
    def sessions(self) -> int:
        """How many live clients are attached."""
        return self.listening + self.live

    # --- receiving ---

    async def _receive(self) -> None:
        """Take in what comes, until the name is held elsewhere."""
        link = await Link.open(self._shared.endpoint)
        try:
            stream = self._shared.keys.inbox(self.name)
            probe = True
            while True:
                cursor = self.core.inbox.position.at
                self.last_turn = asked = time.monotonic()
                if probe:
                    info, raw = await link.probe(stream, cursor, READ_COUNT)
                else:
                    info, raw = None, await link.read(stream, cursor, READ_COUNT)
                if not self.held:
                    # What was read may be another daemon's by now; and if not, it begins where that one stopped.
                    if not await self._shared.acquire(self):
                        return
                    probe = True
                    continue
                full = len(raw) >= READ_COUNT
                if full and info is None:
                    # So many at once may have pushed others out, and that can be counted only before these are
                    # taken in: read them again, with the counts.
                    probe = True
                    continue
                limit = self._shared.settings().max_message
                entries = [decode(at, fields, self._shared.keys, limit) for at, fields in raw]
                last = raw[-1][0].decode() if raw else cursor
                went_back = info is not None and self.core.inbox.went_back(info)
                await self._insist(functools.partial(self.core.receive, entries, last, time.time(), info))
                self._well()
                if info is not None and not full and not went_back:
                    self._set_caught_up(True)
                # Counting is needed where entries may have been missed: after a silence, a stall, a full batch.
                stalled = time.monotonic() - asked > BLOCK + 1
                probe = full or went_back or (info is None and not raw) or stalled
        finally:
            self._set_caught_up(False)
            await link.close()

    async def receive_group(self, broadcasts: Sequence[Message | Malformed], cursor: str) -> None:
        """Broadcasts of the group stream up to `cursor`, from the daemon's one group reader."""
        await self._insist(functools.partial(self.core.receive_group, broadcasts, cursor, time.time()))

    def has_read(self, newest: Sequence[Any]) -> bool:
        """Whether the cursor has passed the newest entry, as XREVRANGE … COUNT 1 gives it."""
        return not newest or entry_key(self.core.inbox.position.at) >= entry_key(newest[0][0].decode())

    async def forget_group(self) -> None:
        await self._insist(lambda: self.core.forget_group(time.time()))

    # --- executing ---

    async def execute(self, decide: Callable[[], list[Effect]]) -> None:
        """Decide and carry out as one step, whoever waits for it. Raises `Full` if the disk takes nothing.

        After an error nothing has changed. A caller that is cancelled leaves the step to end by itself: what is
        on the disk is always applied.
        """
        step = asyncio.create_task(self._step(decide), name=f"{self.name}: step")
        self._tasks.add(step)
        step.add_done_callback(self._tasks.discard)
        await asyncio.shield(step)

    async def _step(self, decide: Callable[[], list[Effect]]) -> None:
        async with self.lock:
            effects = decide()
            for effect in effects:
                await self._carry_out(effect)
            if effects:
                self._wind_timer()

    async def _insist(self, decide: Callable[[], list[Effect]]) -> None:
        """`execute` until the disk takes it, notify lines included. Between tries others may have the lock."""
        backoff = Backoff(base=0.2, cap=5.0)
        done = False
        while not done or self._notify.waiting:
            self.last_turn = time.monotonic()  # a full disk is waited for
            try:
                if not done:
                    await self._step(decide)
                    done = True
                else:
                    async with self.lock:
                        await self._on_disk(self._finish_notify)
            except Full:
                pass
            if not done or self._notify.waiting:
                await asyncio.sleep(backoff.next())

    async def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Journal(records):
                await self._commit(records)
            case Quarantine(entries):
                path = self._journal.path.removesuffix(".journal") + ".quarantine"
                await self._on_disk(functools.partial(quarantine.keep, path, entries))
            case Wake(senders):
                self.waker.mail()
                self._shared.events.publish(
                    "agent.wake", agent=self.name, senders=sorted(senders), unread=len(self.core.inbox.unread)
                )
            case Pong(ping):
                self._spawn(self._answer_ping(ping), "pong")
            case CheckLease(ping):
                self._spawn(self._check_lease(ping), "lease check")

    async def _commit(self, records: Sequence[Record]) -> None:
        inbox = self.core.inbox
        unread = len(inbox.unread)
        await self._on_disk(functools.partial(self._write, records))
        for record in records:
            self.core.apply(record)
        self.wake_waiters()
        if self._journal.compaction_due(inbox.unread_bytes):
            # A failure is said and no more: the records are on the disk, and the journal goes on growing.
            with contextlib.suppress(Full):
                await self._on_disk(self._compact)
        if len(inbox.unread) != unread:
            self._shared.registry_changed(self)
        if any(isinstance(record, Read | Moved) for record in records):
            self.waker.read(len(inbox.unread))
        if (read := self.core.read_record()) != self._told_read:
            self._told_read = read
            self._shared.position_changed(self)
        self._publish(records)

    def _write(self, records: Sequence[Record]) -> None:
        """In a thread: the journal first and synced, then the lines that tell of it."""
        batch = records[-1]
        if isinstance(batch, Batch):
            batch.offset = self._notify.offset()
        try:
            self._journal.append(records)
        except JournalGone:
            log.error("%s: its journal was removed, and is written anew", self.name, extra=self._about)
            self._compact()
            self._journal.append(records)
        if isinstance(batch, Batch):
            self._notify.put(_lines(batch))
            with contextlib.suppress(OSError):  # they are received all the same; the lines are tried again
                self._notify.flush()

    def _compact(self) -> None:
        """In a thread, under the lock, so that nothing is applied meanwhile."""
        self._journal.compact(self.core.snapshot(), self.core.inbox.unread_bytes)

    def _finish_notify(self) -> None:
        try:
            self._notify.flush()
        except OSError as error:
            error.filename = error.filename or self._notify.path
            raise

    async def _on_disk(self, job: Callable[[], None]) -> None:
        """Run a blocking job in a thread. Raises `Full` if the disk refuses."""
        try:
            await self._shared.disk.run(job)
        except OSError as error:
            where = os.path.dirname(error.filename or self._journal.path)
            text = f"cannot write in {where}: {error.strerror or error}"
            self._say_trouble(text)
            raise Full(text, f"free space there, or make it writable: {where}") from None

    def _publish(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, Batch):
                if record.messages:
                    self.last_received = record.now
                for message in record.messages:
                    self._shared.events.publish(
                        "message.received", agent=self.name, id=message.id, sender=message.sender, kind=message.kind
                    )
                if record.lost:
                    self._shared.events.publish("message.lost", agent=self.name, count=record.lost)
            elif record.__struct_config__.tag in ("read", "pinged", "closed"):
                self._shared.events.publish(f"agent.{record.__struct_config__.tag}", agent=self.name)

    # --- pings and leases ---

    async def _answer_ping(self, ping: Ping) -> None:
        fields = ("from", self.name, "pong", "1", "session", "1" if self.sessions else "0")
        try:
            await self._shared.outbox.pong(ping.nonce, fields)
        except StoreError as error:
            log.debug("%s: a pong was not sent: %s", self.name, error.message, extra=self._about)

    async def _check_lease(self, ping: Ping) -> None:
        await self._shared.check_lease(self)
        await self._answer_ping(ping)

    # --- the ledger's clock ---

    def _wind_timer(self) -> None:
        due = self.core.next_due()
        if due == self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_due = due
        if due is not None:
            delay = max(0.0, due - time.time())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._timer_due = None
        self._spawn(self._tick(), "tick")

    async def _tick(self) -> None:
        await self._insist(lambda: self.core.tick(time.time()))
        self._wind_timer()
        self._start_resending()

    def _start_resending(self) -> None:
        if not self._resending and self.core.ledger.unsent():
            self._resending = True
            self._spawn(self._send_repings(), "re-pings")

    async def _send_repings(self) -> None:
        """Send what the ledger decided, until the store has it. Their ids make a repetition harmless."""
        backoff = Backoff(cap=30.0)
        try:
            while actions := self.core.ledger.unsent():
                sent = [await self._send_reping(action) for action in actions]
                if all(sent):
                    backoff.reset()
                else:
                    await self._shared.commands.up.wait()
                    await asyncio.sleep(backoff.next())
        finally:
            self._resending = False

    async def _send_reping(self, action: Reping | Escalate) -> bool:
        """Whether the store has it."""
        escalate_to = self._shared.settings().escalate_to
        target = escalate_to if isinstance(action, Escalate) else action.to
        # An escalation is a message of its own for the watchdog, a re-ping is about one that the target has.
        field = "thread" if isinstance(action, Escalate) else "about"
        out = Outgoing(
            action.id, self.name, target, action.text, private=True, fields=(field, action.about), gated=False
        )
        try:
            await self._shared.outbox.send(out)
        except UsageError:
            pass  # sent under this id by an earlier run, to the watchdog of that time
        except StoreError as error:
            about = self._about | {"message_id": action.about}
            log.debug("%s: a re-ping waits for the store: %s", self.name, error.message, extra=about)
            return False
        await self._insist(lambda: self.core.mark_sent(action.about, time.time()))
        return True


def _lines(batch: Batch) -> list[str]:
    return [*batch.lines, *(message.notify_line() for message in batch.messages)]
