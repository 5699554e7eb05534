"""The list of hosted names on the disk: what comes back after a restart. Written whole, and once for all who wait."""

from __future__ import annotations

import asyncio
import functools

from meshd.disk import hosted as hosted_file
from meshd.disk.hosted import Hosted
from meshd.disk.worker import DiskWorker
from meshd.errors import ConfigError, Full


class Roster:
    """Names and what is kept of each. `trouble`: the list cannot be read, so that nobody is hosted, and it is kept."""

    def __init__(self, path: str, disk: DiskWorker) -> None:
        self.path = path
        self.trouble: ConfigError | None = None
        self._disk = disk
        self._names: dict[str, Hosted] = {}
        self._writing = asyncio.Lock()
        self._wanted = 0  # changes so far
        self._written = 0  # of them

    def load(self) -> dict[str, Hosted]:
        """Those of the last run. Blocks. Without a list that can be read the daemon lives, and says it."""
        try:
            self._names = hosted_file.load(self.path)
        except ConfigError as error:
            self.trouble = error
        return dict(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    async def add(self, name: str, hosted: Hosted) -> None:
        """Host it after a restart, too. On the disk when this returns; raises `Full`: then it is not."""
        before = self._names.get(name)
        if before == hosted:
            return
        self._names[name] = hosted
        try:
            await self._write()
        except BaseException:
            if before is None:
                self._names.pop(name, None)
            else:
                self._names[name] = before
            raise

    async def remove(self, name: str) -> None:
        """Not any more. Raises `Full`: then it is only not known on the disk."""
        if self._names.pop(name, None) is not None:
            await self._write()

    async def _write(self) -> None:
        self._wanted += 1
        mine = self._wanted
        async with self._writing:
            if self._written >= mine:
                return  # one who waited before has written it, too
            reached = self._wanted
            try:
                await self._disk.run(functools.partial(hosted_file.save, self.path, dict(self._names)))
            except OSError as error:
                raise Full(f"cannot write {self.path}: {error.strerror}", "free space there") from None
            self._written = reached
