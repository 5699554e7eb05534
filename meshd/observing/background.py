"""The one way to start a task beside the work: it has a name, and what ends it is logged, and told to `status`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from meshd.core.backoff import Backoff

T = TypeVar("T")

STEADY = 10.0  # seconds that work must last after it was started again, to count as well


class Background:
    """Tasks that belong to one owner, and end with it at the latest."""

    def __init__(self, log: logging.Logger, about: Mapping[str, str] | None = None) -> None:
        """`about`: fields of each line that is logged (meshd/service/journald.py)."""
        self.failing: dict[str, str] = {}  # kept work that has failed lately -> why
        self._log = log
        self._about = dict(about or {})
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run it once. That it failed is logged, unless somebody awaits it and is told."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """Run it until it returns, and again after each failure: the restart wrapper of work that must go on."""
        return self.start(self._keep(work, name), name)

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            began = time.monotonic()
            well = loop.call_later(STEADY, self.failing.pop, name, None)
            try:
                return await work()
            except Exception as error:
                why = f"{name} failed and is started again; see the log"
                if name in self.failing:
                    self._log.debug("%s: %r", why, error, extra=self._about)
                else:
                    self._log.exception("%s", why, extra=self._about)
                self.failing[name] = why
            finally:
                well.cancel()
            if time.monotonic() - began > STEADY:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("%s failed", task.get_name(), exc_info=error, extra=self._about)

    def cancel(self) -> None:
        """Ask all of them to end."""
        for task in list(self._tasks):
            task.cancel()

    async def end(self) -> None:
        """End all of them, and wait until they have."""
        tasks = list(self._tasks)
        self.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
