"""Whether the store lives, as all connections to it find out together.

A reply that is late proves nothing by itself: the store may be slow, for everybody, and a thousand readers that
connect anew make it no quicker. So whoever waits for too long has the command connection ask. If the store answers
that one and the reply is still missing, its way is dead, and the wait is ended. When the command connection finds that
the store is gone, all waits are ended at once.

TCP's own keepalive would not do: a proxy acknowledges what it never passes on, and so does a store that is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

# Whoever waits for entries asks again after so many seconds, so that a way that is whole is heard from so often.
BLOCK = 4.0
# The command connection asks for a sign of life when it has heard nothing for so many seconds.
HEARTBEAT = 1.5
# Seconds from the last word after which a way is known to be dead: all of this together stays below 5.
NOTICED = 4.8
_LATE = BLOCK + 0.4  # seconds after which a reply is late, and the command connection asks
_STEP = 0.2  # seconds between two looks at a wait that is late; it is ended by the second that finds the store alive


class Pulse:
    """What the connections to one store know of it. `ask` has the command connection ask; `heard` is the event loop's
    time of the last reply to any of them.
    """

    def __init__(self) -> None:
        self.ask: Callable[[], None] = lambda: None
        self.heard = 0.0
        self.waits: set[Wait] = set()

    def beat(self) -> None:
        """A reply has come."""
        self.heard = asyncio.get_running_loop().time()

    def wait(self, longest: float, came: Callable[[], int] = lambda: 0) -> Wait:
        """A wait of so many seconds at most, for what `came` counts the bytes of: a reply that is on its way is alive.

        It is ended by `TimeoutError`.
        """
        return Wait(self, longest, came)

    def end_all(self) -> None:
        """The store is gone, or another one: who waits for it waits in vain."""
        for wait in list(self.waits):
            wait.end()


class Wait:
    """An async context manager, as `asyncio.timeout` is one."""

    def __init__(self, pulse: Pulse, longest: float, came: Callable[[], int]) -> None:
        self._pulse = pulse
        self._longest = longest
        self._came = came
        self._limit = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle
        self.asked = 0.0  # when the question was put that is waited for
        self._late = 0.0
        self._seen = self._alive = 0

    async def __aenter__(self) -> Wait:
        await self._limit.__aenter__()
        loop = asyncio.get_running_loop()
        self.asked = loop.time()
        self._timer = loop.call_at(self.asked + _LATE, self._may_be_late)
        self._pulse.waits.add(self)
        return self

    def again(self) -> None:
        """The reply has come, and the same was asked again."""
        self.asked = self._pulse.heard = asyncio.get_running_loop().time()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._pulse.waits.discard(self)
        await self._limit.__aexit__(kind, error, trace)

    def end(self) -> None:
        if not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    def _may_be_late(self) -> None:
        loop, due = asyncio.get_running_loop(), self.asked + _LATE
        if loop.time() < due:  # one timer, however often it was asked again
            self._timer = loop.call_at(due, self._may_be_late)
        else:
            self._is_late()

    def _is_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._late, self._seen, self._alive = loop.time(), self._came(), 0
        self._pulse.ask()
        self._timer = loop.call_later(_STEP, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self.asked > self._late:
            self._may_be_late()
            return
        until = self.asked + self._longest
        if self._came() != self._seen and loop.time() < until:
            self._is_late()
            return
        # Who was answered at the same moment may be looked at a little too early: it takes two looks.
        self._alive += self._pulse.heard >= self._late
        if self._alive > 1 or loop.time() >= until:
            self.end()
            return
        self._timer = loop.call_later(_STEP, self._look)
