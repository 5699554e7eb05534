"""Brings the embedded store's log to the disk, so that it survives a power failure, too.

The store writes to its log before it answers, but leaves the syncing to us (engine.py). While it syncs by itself once a
second it answers before it writes, and syncing before each answer takes the time of a disk for every few messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

from meshd.disk.worker import DiskWorker
from meshd.observing.background import Background
from meshd.observing.outage import Outage

log = logging.getLogger("meshd.store")

PERIOD = 1.0  # seconds after a write in which it is on the disk, if that is quick


class LogSync:
    """Syncs what was written to the log in `folder`, the store's own, and nothing while nothing is written."""

    def __init__(self, folder: str, disk: DiskWorker) -> None:
        self._folder = os.path.join(folder, "appendonlydir")
        self._disk = disk
        self._due = False  # a sync will come that begins after this moment
        self._turn = asyncio.Lock()
        self._outage = Outage(log, logging.ERROR)
        self._background = Background(log)

    def written(self) -> None:
        """The store has answered to something that it may have written down."""
        if not self._due:
            self._due = True
            self._background.start(self._sync(), "the sync of the embedded store's log")

    async def end(self) -> None:
        """No sync any more: a store that is stopped syncs its log itself."""
        await self._background.end()

    async def _sync(self) -> None:
        await asyncio.sleep(PERIOD)
        async with self._turn:  # on a slow disk one sync follows the other
            self._due = False
            try:
                await self._disk.run(self._sync_files)
            except OSError as error:
                self._outage.begin(f"cannot sync the embedded store's log in {self._folder}: {error.strerror or error}")
            else:
                self._outage.end("the embedded store's log is synced again")

    def _sync_files(self) -> None:
        """In a thread. There are two only while the store shortens its log; it syncs the shortened one itself."""
        for name in os.listdir(self._folder):
            if name.endswith(".incr.aof"):
                with contextlib.suppress(FileNotFoundError):  # it was shortened meanwhile
                    _sync_file(os.path.join(self._folder, name))


def _sync_file(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)
