"""Carries out what an agent's core decides: journal, then apply, then tell. One writer, which ends with its agent.

The journal is the truth: nothing is applied or told before it is on the disk. The notify log is a hint with a failure
of its own: that it cannot be written holds no mail back.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from meshd.core.agent import AgentCore
from meshd.core.backoff import Backoff
from meshd.core.effects import Commit, Drop, Effect, Load, Quarantine, Spill
from meshd.core.message import Malformed
from meshd.core.records import Batch, Record, Spilled
from meshd.disk import quarantine
from meshd.disk.files import refusal
from meshd.disk.journal import Journal, JournalGone
from meshd.disk.pace import Pace
from meshd.disk.worker import DiskWorker, Sequel
from meshd.errors import Full, MeshError
from meshd.observing.background import Background
from meshd.receiving.cold_mail import ColdMail
from meshd.receiving.health import JOURNAL, Health
from meshd.receiving.notify_queue import NotifyQueue
from meshd.receiving.tidying import Tidying
from meshd.system import clock

log = logging.getLogger("meshd.agent")
T = TypeVar("T")

END_PATIENCE = 5.0  # seconds


class Executor:
    """Orders decisions: decide, write, apply, one after another.

    `carry(effect)` carries out what is not for the disk; `told(records)` is called with what was written and applied.
    Neither may wait. After `end(why)` nothing is written any more: whoever comes then, or waits, is told why.
    """

    def __init__(
        self,
        core: AgentCore,
        journal: Journal,
        notify: NotifyQueue,
        disk: DiskWorker,
        health: Health,
        carry: Callable[[Effect], None],
        told: Callable[[Sequence[Record]], None],
    ) -> None:
        self._core = core
        self._journal = journal
        on_disk = lambda job: disk.run(functools.partial(self._begin, job))  # noqa: E731
        self.cold = ColdMail(core, journal, health, on_disk, self._commit)
        self._notify, self._disk, self._health = notify, disk, health
        self._carry, self._told = carry, told
        self._lock = asyncio.Lock()
        self._ended: MeshError | None = None
        self._pausing: asyncio.Event | None = None  # made when somebody pauses: of a thousand agents few ever do
        self._given_up = False  # the disk did not answer until the end: what was not begun then never is
        # Callers, each for a step. No set, which takes thrice as much while it is empty.
        self._waiting: dict[asyncio.Future[list[Effect] | Exception], None] = {}
        # The last entries that were put aside: where they stood, and why.
        self._kept: tuple[tuple[str, str], ...] = ()
        self._background = Background(log, {"agent": core.name})
        self._tidying = Tidying(core, journal, self.cold, self.execute, self._compact, self._background)
        self.held_up: Full | None = None  # why the disk does not take what has come, while that is tried again

    def load(self) -> None:
        """Fold the journal, and finish the notify log. Blocks; raises `ConfigError`, `OSError`."""
        records = self._journal.load()
        pace = Pace()
        for record in records:
            self._core.apply(record)
            pace()
        if damaged := self._journal.damaged:
            name = self._core.name
            log.error("%s: %d damaged records in the journal, kept aside", name, damaged, extra={"agent": name})
        self.cold.recover(damaged=damaged > 0)
        for mended in self._core.mend(clock.wall()):
            self._journal.append([mended])
            self._core.apply(mended)
        # That mail was put on the disk since tells nothing of whether its lines were written.
        self._notify.recover([record for record in records if not isinstance(record, Spilled)])

    def start(self) -> None:
        """The loop runs: what `load` could not finish is tried again."""
        self._notify.start()
        self._tidying.if_due()  # an older version had all mail in memory

    async def execute(
        self, decide: Callable[[], list[Effect]], ended: Callable[[bool], None] | None = None
    ) -> list[Effect]:
        """Decide and carry out as one step; what was decided. Raises `Full` if the disk takes nothing.

        After an error nothing has changed. A caller that is cancelled leaves the step to end by itself: what is
        on the disk is always applied. `ended` is told whether it was, at the step's end and no earlier.
        Raises what the agent ended with, if it has ended.
        """
        step = self._background.start(self._outcome(decide, ended), f"{self._core.name}: step")
        waiting = asyncio.shield(step)
        self._waiting[waiting] = None
        try:
            found = await waiting
        except asyncio.CancelledError:
            step.add_done_callback(self._left)
            raise
        finally:
            self._waiting.pop(waiting, None)
        if isinstance(found, Exception):
            raise found
        return found

    async def _outcome(
        self, decide: Callable[[], list[Effect]], ended: Callable[[bool], None] | None
    ) -> list[Effect] | Exception:
        done = False
        try:
            effects = await self._step(decide)
            done = True
            return effects
        except asyncio.CancelledError:
            if self._ended is None:
                raise
            return _again(self._ended)
        except Exception as error:  # it is the caller's
            return error
        finally:
            if ended is not None:
                ended(done)

    def _left(self, step: asyncio.Task[list[Effect] | Exception]) -> None:
        """A step whose caller did not wait for it has ended: an error that nobody expects is said here."""
        if not step.cancelled() and isinstance(error := step.result(), Exception) and not isinstance(error, MeshError):
            log.error("%s: a step failed", self._core.name, exc_info=error, extra={"agent": self._core.name})

    async def insist(self, decide: Callable[[], list[Effect]], *, room: bool = False) -> list[Effect]:
        """`execute` until the disk takes it, with `room` once there is room in memory for more mail. Between tries
        others may have their turn.
        """
        backoff = Backoff(base=0.2, cap=5.0)
        while True:
            try:
                if room:
                    await self._tidying.make_room(self._pause)
                effects = await self.execute(decide)
            except Full as full:
                if self._ended is not None:
                    raise
                self.held_up = full
                await self._pause(backoff.next())
            else:
                self.held_up = None
                return effects

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until the agent ends: for a disk, which is no standstill."""
        self._health.turned()
        self._pausing = self._pausing or asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._pausing.wait()

    async def _step(self, decide: Callable[[], list[Effect]]) -> list[Effect]:
        async with self._lock:
            self._check()
            effects = decide()
            for effect in effects:
                match effect:
                    case Commit(records):
                        await self._commit(records)
                    case Quarantine(entries):
                        await self._keep(entries)
                    case Spill() | Load() | Drop():
                        await self.cold.carry(effect)
                    case _:
                        self._carry(effect)
            return effects

    async def undisturbed(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Await this while no step is carried out. Raises as `execute` does."""
        async with self._lock:
            self._check()
            return await ask()

    async def _keep(self, entries: Sequence[Malformed]) -> None:
        """Put them aside, each once, however often their records are tried."""
        path = self._journal.path.removesuffix(".journal") + ".quarantine"
        if fresh := [entry for entry in entries if (entry.at, entry.reason) not in self._kept]:
            await self._on_disk(functools.partial(quarantine.keep, path, fresh))
            self._health.put_aside(len(fresh))
        self._kept = tuple((entry.at, entry.reason) for entry in entries)

    def _check(self) -> None:
        if self._ended is not None:
            raise _again(self._ended)

    async def _commit(self, records: Sequence[Record]) -> None:
        await self._on_disk(functools.partial(self._write, records), self._notify.sequel)
        for record in records:
            self._core.apply(record)
        self._told(records)
        self._tidying.if_due()

    def _write(self, records: Sequence[Record]) -> None:
        """In a thread: the journal first and synced, then the lines wait that tell of it."""
        batch = records[-1]
        if isinstance(batch, Batch):
            batch.offset = self._notify.offset()
        try:
            self._journal.append(records)
        except JournalGone:
            name = self._core.name
            log.error("%s: its journal was removed, and is written anew", name, extra={"agent": name})
            self._rewrite()
            self._journal.append(records)
        if isinstance(batch, Batch):
            self._notify.tell(batch)

    def _rewrite(self) -> None:
        """In a thread, under the lock, so that nothing is applied meanwhile."""
        self._journal.compact(self._core.snapshot(), self._core.inbox.unread.journaled)

    async def _compact(self) -> None:
        async with self._lock:
            self._check()
            if self._tidying.compaction_due():
                await self._on_disk(self._rewrite)

    async def _on_disk(self, job: Callable[[], T], sequel: Sequel | None = None) -> T:
        """Run a blocking job in a thread. Raises `Full` if the disk refuses."""
        try:
            result = await self._disk.run(functools.partial(self._begin, job), sequel)
        except OSError as error:
            full = refusal(error, self._journal.path)
            self._health.say(JOURNAL, full.message)
            raise full from None
        self._health.well(JOURNAL)
        return result

    def _begin(self, job: Callable[[], T]) -> T:
        """In a thread, which may have been long in coming: the files may be another one's by now."""
        if self._given_up:
            raise OSError(errno.ETIMEDOUT, "the disk does not answer")
        return job()

    async def end(self, why: MeshError) -> None:
        """End with the agent: a step that has begun is finished, nothing follows it, and the files are closed.

        A disk that does not answer is not waited for beyond `END_PATIENCE`, by nobody: its files are closed when it
        does.
        """
        self._ended = why
        if self._pausing is not None:
            self._pausing.set()
        try:
            async with asyncio.timeout(END_PATIENCE), self._lock:
                pass
        except TimeoutError:
            name = self._core.name
            log.error("%s: the disk does not answer; what it was to write may be missing", name, extra={"agent": name})
            self._given_up = True
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(_again(why))
            self._background.cancel()
        else:
            await self._background.end()
        self._journal.close()
        await self._notify.end()


def _again(error: MeshError) -> MeshError:
    """The same for one more who is told."""
    return type(error)(error.message, error.hint)
