"""Connections are opened a few at a time, so that the event loop does other work in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

# Thousands of agents connect anew when a store comes back. Each takes about a millisecond of the processor, and all
# that are ready run in one turn of the loop: so many at once keep it for some tens of milliseconds.
AT_ONCE = 32


class Slots:
    """Turns to connect, in the order in which they were asked for; `first` waits for none."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)

    @contextlib.asynccontextmanager
    async def turn(self, *, first: bool) -> AsyncIterator[None]:
        """`first`: of what all the others depend on."""
        if first:
            yield
            return
        await self._free.acquire()
        try:
            yield
        finally:
            # What has become ready meanwhile goes before the next. It is not awaited here: whoever is cancelled while
            # it leaves would lose the connection that it has just opened.
            asyncio.get_running_loop().call_soon(self._free.release)
