"""Where blocking disk work runs: in place while the disk is quick, in a thread when it is not.

A hop to a thread and back costs as much as a sync on a quick disk. A disk that was slow once is given a thread
until it is quick again, so one slow sync is the most that the event loop ever waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

THREADS = 4
QUICK = 0.001  # seconds
# Jobs at once from which threads pay: their syncs share the file system's own commit.
CROWD = 3


class DiskWorker:
    """Runs jobs, each of which blocks. Jobs of one agent never overlap: its lock sees to that."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")
        self._last = 0.0
        self._running = 0

    async def run(self, job: Callable[[], None]) -> None:
        """Run the job. Raises what it raises."""
        if self._last < QUICK and self._running < CROWD:
            self._timed(job)
            return
        self._running += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._timed, job)
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            # The thread goes on with files that the caller would close: it ends first.
            await asyncio.wait([future])
            raise
        finally:
            self._running -= 1

    def _timed(self, job: Callable[[], None]) -> None:
        started = time.monotonic()
        try:
            job()
        finally:
            self._last = time.monotonic() - started

    def close(self) -> None:
        self._threads.shutdown()
