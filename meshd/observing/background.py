"""The one way to start a task beside the work: it has a name, and what ends it is logged, and told to `status`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from meshd.core.backoff import Backoff

T = TypeVar("T")

STEADY = 10.0  # seconds that work must last after it was started again, to count as well


class Background:
    """Tasks that belong to one owner, and end with it at the latest. Used from one event loop."""

    def __init__(self, log: logging.Logger, about: Mapping[str, str] | None = None, *, steady: float = STEADY) -> None:
        """`about`: fields of each line that is logged (meshd/service/journald.py). `steady`: seconds."""
        self.failing: dict[str, str] = {}  # kept work that has failed lately -> why, in words for `status`
        self._log = log
        self._about = about
        self._steady = steady
        # A dictionary for its order, and because an empty one is small: an agent has several of these.
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run it once. That it failed is logged with its name, whether or not somebody awaits it as well."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """Run it until it returns, and again after each failure: the restart wrapper of work that must go on.

        Each name is kept once: `failing` is told by it.
        """
        return self.start(self._keep(work, name), name)

    async def _keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        backoff, loop = Backoff(), asyncio.get_running_loop()
        known: type[BaseException] | None = None
        try:
            while True:
                began = loop.time()
                well = loop.call_later(self._steady, self.failing.pop, name, None)
                try:
                    return await work()
                except (Exception, asyncio.CancelledError) as error:
                    if _was_asked_to_end():
                        raise
                    if loop.time() - began > self._steady:
                        backoff.reset()
                        known = None
                    self._tell(name, error, again=type(error) is known)
                    known = type(error)
                finally:
                    well.cancel()
                await asyncio.sleep(backoff.next())
        finally:
            self.failing.pop(name, None)  # it is done, or ended with its owner: nothing of it fails any more

    def _tell(self, name: str, error: BaseException, *, again: bool) -> None:
        """A trouble that lasts is one traceback in the log, and then a line for whoever debugs."""
        why = self.failing[name] = f"{name} failed and is started again; see the log"
        if again:
            self._log.debug("%s: %r", why, error, extra=self._about)
        else:
            self._log.error("%s", why, exc_info=error, extra=self._about)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            if not task.cancelling():
                self._log.error("%s ended: what it waited for was cancelled", task.get_name(), extra=self._about)
        elif (error := task.exception()) is not None:
            self._log.error("%s failed", task.get_name(), exc_info=error, extra=self._about)

    @property
    def running(self) -> list[str]:
        """The names of what has not ended yet."""
        return [task.get_name() for task in self._tasks]

    def cancel(self) -> None:
        """Ask all of them to end."""
        for task in list(self._tasks):
            task.cancel()

    async def join(self) -> None:
        """Wait until all of them have ended by themselves, also those that are started meanwhile."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def end(self) -> None:
        """End all of them, and wait until they have: one that starts another at its end takes that along."""
        while self._tasks:
            self.cancel()
            await asyncio.wait(list(self._tasks))


def owned(work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task whose owner keeps it, and which tells everything itself, also what ends it.

    For what is started thousands of times a second, where the callback at its end would be felt.
    """
    return asyncio.get_running_loop().create_task(work, name=name)


def _was_asked_to_end() -> bool:
    """Whether somebody cancelled this task. If not, what it waited for was cancelled by its own owner.

    An owner that ends a future under its readers means them to look again, not to end for ever without a word.
    """
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling() > 0
