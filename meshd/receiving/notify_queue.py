"""The notify log of one agent, apart from its journal: lines that could not be written wait here, and hold nothing up.

A hint: what waits is bounded, and of what was left out one line says how much.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence

from meshd.core.backoff import Backoff
from meshd.core.records import Batch, Record
from meshd.disk.notify import NotifyLog
from meshd.disk.worker import DiskWorker
from meshd.receiving.health import NOTIFY, Health

WAITING = 1000  # lines


class NotifyQueue:
    """`offset` and `tell` are called from the thread that writes the journal, the rest from the loop."""

    def __init__(self, notify: NotifyLog, disk: DiskWorker, health: Health) -> None:
        self._log = notify
        self._disk = disk
        self._health = health
        self._waiting: deque[str] = deque()
        self._left_out = 0
        self._trouble: OSError | None = None
        self._retrying: asyncio.Task[None] | None = None

    def recover(self, records: Sequence[Record]) -> None:
        """After a start: finish the last batch's lines, which a crash may have cut off."""
        if records and isinstance(batch := records[-1], Batch):
            try:
                self._log.finish(lines_of(batch), batch.offset)
            except OSError as error:
                self._keep(lines_of(batch), error)

    def offset(self) -> int:
        """Where the next batch's lines will begin, as far as that is known."""
        try:
            return self._log.offset()
        except OSError:
            return 0

    def tell(self, batch: Batch) -> None:
        """Append the batch's lines; what cannot be written waits."""
        lines = lines_of(batch)
        if not lines:
            return
        if self._waiting:
            self._keep(lines, self._trouble)
            return
        try:
            self._log.append(lines, batch.offset)
        except OSError as error:
            self._keep(lines, error)

    def _keep(self, lines: Sequence[str], error: OSError | None) -> None:
        self._trouble = error
        self._waiting.extend(lines)
        while len(self._waiting) > WAITING:
            self._waiting.popleft()
            self._left_out += 1

    def look(self) -> None:
        """Whether lines wait: then that is said, and they are tried again."""
        if not self._waiting or self._retrying is not None:
            return
        self._say()
        self._retrying = asyncio.get_running_loop().create_task(self._retry(), name="notify log")

    def _say(self) -> None:
        error = self._trouble
        where = (error.filename if error is not None else None) or self._log.path
        why = (error.strerror or str(error)) if error is not None else "unknown"
        folder = "" if os.path.isdir(where) else f"; is there room in {os.path.dirname(where)}?"
        self._health.say(NOTIFY, f"its notify log {where} cannot be written: {why}{folder}")

    async def _retry(self) -> None:
        backoff = Backoff(base=0.2, cap=5.0)
        try:
            while self._waiting:
                await asyncio.sleep(backoff.next())
                await self._disk.run(self._again)
                if self._waiting:
                    self._say()
            self._health.well(NOTIFY)
        finally:
            self._retrying = None

    def _again(self) -> None:
        """In a thread: what waits, first what was left out of it."""
        lines = list(self._waiting)
        taken = len(lines)
        if self._left_out:
            lines.insert(0, f"⚠ {self._left_out} lines were left out while this file could not be written")
        try:
            self._log.append(lines, self._log.offset())
        except OSError as error:
            self._trouble = error
            return
        self._left_out = 0
        for _ in range(taken):
            self._waiting.popleft()

    async def end(self) -> None:
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.gather(self._retrying, return_exceptions=True)
        self._log.close()


def lines_of(batch: Batch) -> list[str]:
    return [*batch.lines, *(message.notify_line() for message in batch.messages)]
