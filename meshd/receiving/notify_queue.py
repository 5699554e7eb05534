"""The notify log of one agent, apart from its journal: lines that could not be written wait, and hold nothing up."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Sequence

from meshd.core.backoff import Backoff
from meshd.core.records import Batch, Record
from meshd.disk.notify import MOST_WAITING, NotifyLog
from meshd.disk.worker import DiskWorker, Sequel
from meshd.observing.background import Background
from meshd.receiving.health import NOTIFY, Health
from meshd.receiving.signal import Signal

log = logging.getLogger("meshd.agent")


class NotifyQueue:
    """`recover`, `offset` and `tell` are called from the threads that write, the rest from the loop.

    `sequel` writes what waits, and is for the thread that has written the journal. `written`: lines stand in the file,
    which is later than what they tell of; or nothing is written any more.
    """

    def __init__(self, notify: NotifyLog, disk: DiskWorker, health: Health) -> None:
        self.written = Signal()
        self._log = notify
        self._disk = disk
        self._health = health
        self.sequel = Sequel(notify.flush, self._flushed)
        self._trouble: BaseException | None = None
        self._ended = False
        self._retrying = False
        self._background = Background(log)

    def recover(self, records: Sequence[Record]) -> None:
        """After a start: finish the last batches' lines, which a crash may have cut off. Whatever fails, waits."""
        batches = _unfinished(records, self._log.size())
        lines = [line for batch in batches for line in lines_of(batch)]
        # Of several it is known that they agree with one another and with the file; and one that something else has
        # followed was most likely told.
        again = batches == list(records[-1:])
        self._log.finish(lines, batches[0].offset if batches else 0, again=again)
        try:
            self._log.flush()
        except OSError as error:
            self._trouble = error

    def start(self) -> None:
        """From now on what waits is tried again, and a log in trouble is said."""
        if self._trouble is not None:
            self._flushed(self._trouble)

    def offset(self) -> int:
        """Where the next batch's lines will begin, as far as that is known."""
        return self._log.offset()

    def tell(self, batch: Batch) -> None:
        """Let the batch's lines wait for the `sequel`."""
        self._log.put(lines_of(batch))

    def _flushed(self, error: BaseException | None) -> None:
        """After each attempt: a log in trouble is said, and what waits is tried again."""
        self._trouble = error
        if error is None:
            self.written.send()
        elif not self._retrying and not self._ended:
            self._say(error)
            self._retrying = True
            self._background.start(self._retry(), f"the notify log {self._log.path}")

    def _say(self, error: BaseException) -> None:
        where = getattr(error, "filename", None) or self._log.path
        why = getattr(error, "strerror", None) or str(error)
        # By the number, because to look would be work for the disk.
        folder = "" if getattr(error, "errno", 0) == errno.EISDIR else f"; is there room in {os.path.dirname(where)}?"
        self._health.say(NOTIFY, f"its notify log {where} cannot be written: {why}{folder}")

    async def _retry(self) -> None:
        backoff = Backoff(base=0.2, cap=5.0)
        try:
            while self._trouble is not None:
                await asyncio.sleep(backoff.next())
                try:
                    await self._disk.run(self._log.flush)
                    self._trouble = None
                    self.written.send()
                except OSError as error:
                    self._trouble = error
                    self._say(error)
            self._health.well(NOTIFY)
        finally:
            self._retrying = False

    async def end(self) -> None:
        self._ended = True
        await self._background.end()
        self._log.close()
        self.written.send()


def _unfinished(records: Sequence[Record], size: int) -> list[Batch]:
    """The last batches, oldest first: the one of which a part may stand in the file, and those that waited behind it.

    Only the last one, if the offsets do not follow from one another: then the file was rotated or changed in between.
    """
    found: list[Batch] = []
    behind = 0  # where the lines of the next older one must end
    for batch in reversed(records):
        if not isinstance(batch, Batch):
            continue
        if found and (size == 0 or batch.offset + _length(batch) != behind or found[0].offset - behind > MOST_WAITING):
            break
        found.append(batch)
        behind = batch.offset
        if behind <= size:
            return found[::-1]
    return found[:1]


def _length(batch: Batch) -> int:
    return sum(len(line.encode()) + 1 for line in lines_of(batch))


def lines_of(batch: Batch) -> list[str]:
    return [*batch.lines, *(message.notify_line() for message in batch.messages)]
