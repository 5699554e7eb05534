"""Where blocking disk work runs: always in a thread, so that the event loop waits for no disk.

The threads are our own and not an executor's, whose threads the interpreter waits for at its end: one that hangs in
a disk which does not answer would keep the daemon from ending. A hop costs one wake of a thread and one of the loop;
jobs that wait are taken by whichever thread is free, and what has ended meanwhile wakes the loop once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

log = logging.getLogger("meshd.disk")

# Threads that work at once: their syncs share the file system's own commit, and more of them contend only.
THREADS = 4
# Seconds after which a job is taken to hang, and its thread is no longer counted among those that work.
HUNG = 0.2
MOST_THREADS = 128  # those that hang among them
PATIENCE = 5.0  # seconds that the daemon's end waits for jobs that hang

T = TypeVar("T")


class _Job:
    """A call and what came of it. `waker` is what its caller waits for, on the loop."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.waker: asyncio.Future[None]
        self.begun: float | None = None  # monotonic seconds
        self.over = False  # for its caller: the loop has been told, or the caller waits no longer
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        self.begun = time.monotonic()
        try:
            self.result = self.call()
        except BaseException as error:  # it is the caller's, who waits on the loop
            self.error = error

    def tell(self) -> None:
        self.over = True
        if not self.waker.done():
            self.waker.set_result(None)


class DiskWorker:
    """Runs jobs, each of which blocks, in threads. Jobs of one agent never overlap: its lock sees to that.

    A job that hangs holds up nobody but its own agent, because its thread is replaced, up to `MOST_THREADS`; beyond
    those, jobs wait. So what may hang for reasons of its own, as another disk does, has a worker of its own.
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ended: deque[_Job] = deque()
        self._told = False  # the loop is about to look at `_ended`
        # From here on only the loop looks. A job is open from its asking until its caller was told.
        self._open: set[_Job] = set()
        self._threads = 0
        self._loop: asyncio.AbstractEventLoop
        self._watch: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None
        self._given_up = False

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises, from a thread.

        A caller that is cancelled goes on once the thread is done, because it would close the files that the thread
        works with. Raises `OSError` if the disk gave no answer, and the daemon's end could wait no longer.
        """
        if self._given_up:
            raise _no_answer()
        job = _Job(call)
        self._put(job)
        cancelled: asyncio.CancelledError | None = None
        while not job.over:
            try:
                await job.waker
            except asyncio.CancelledError as error:
                cancelled = error
                job.waker = self._loop.create_future()
        if cancelled is not None:
            raise cancelled
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def longest(self) -> float:
        """For how many seconds the oldest job that runs has been running; 0 while none runs."""
        begun = [job.begun for job in self._open if job.begun is not None]
        return time.monotonic() - min(begun) if begun else 0.0

    def _put(self, job: _Job) -> None:
        self._loop = asyncio.get_running_loop()
        job.waker = self._loop.create_future()
        self._open.add(job)
        if len(self._open) > self._threads:
            if self._threads < THREADS:
                self._start(1)
            elif self._watch is None:
                self._watch = self._loop.call_later(HUNG, self._look)
        self._waiting.put(job)

    def _start(self, count: int) -> None:
        for _ in range(count):
            threading.Thread(target=self._work, name="disk", daemon=True).start()
        self._threads += count

    def _look(self) -> None:
        """While jobs wait: start threads in the place of those that hang. Where many do, more are started at once."""
        self._watch = None
        waiting = len(self._open) - self._threads
        if waiting <= 0:
            return
        hung = self._hung()
        if self._threads - hung < THREADS:
            self._start(min(waiting, max(THREADS, hung), MOST_THREADS - self._threads))
        self._watch = self._loop.call_later(HUNG, self._look)

    def _hung(self) -> int:
        long_ago = time.monotonic() - HUNG
        return sum(job.begun is not None and job.begun < long_ago for job in self._open)

    def _work(self) -> None:
        """A thread's life."""
        while (job := self._waiting.get()) is not None:
            if job.over:
                continue  # given up before it was begun
            job.run()
            self._ended.append(job)
            # Asked without a lock: at worst two threads tell of it, and the second time there is nothing to see.
            if not self._told:
                self._told = True
                with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                    self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        """Tell the callers of what has ended, and end threads that were started in the place of hung ones."""
        self._told = False  # before looking: what ends after it tells again
        while self._ended:
            job = self._ended.popleft()
            self._open.discard(job)
            job.tell()
        if self._threads > THREADS:
            for _ in range(self._threads - THREADS - self._hung()):
                self._waiting.put(None)
                self._threads -= 1

    # --- the end ---

    def hurry(self, patience: float = PATIENCE) -> None:
        """The daemon ends: its callers wait `patience` seconds longer for jobs that hang, and get an error then."""
        self._end = asyncio.get_running_loop().call_later(patience, self._give_up)

    def _give_up(self) -> None:
        self._given_up = True
        for job in self._open:
            job.error = _no_answer()
            job.tell()

    def close(self) -> None:
        """No job any more. Threads that hang are left to the process's end, which does not wait for them."""
        for timer in (self._watch, self._end):
            if timer is not None:
                timer.cancel()
        if self._given_up:
            log.error("the disk gave no answer to %d jobs: what they were to write may be missing", len(self._open))
        for _ in range(self._threads):
            self._waiting.put(None)
        self._threads = 0


def _no_answer() -> OSError:
    return OSError(errno.ETIMEDOUT, "the disk does not answer")
