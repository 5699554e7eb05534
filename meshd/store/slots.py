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
        async with self._free:
            yield
            await asyncio.sleep(0)  # what has become ready meanwhile goes before the next
