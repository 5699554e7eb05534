"""Waiting for one entry on a short-lived stream: a pong, or the reply to a request.

Each wait holds a connection, because a connection inside XREAD BLOCK cannot do anything else; a few are kept
warm for the next wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from meshd.core.backoff import Backoff
from meshd.core.clock import Mono
from meshd.errors import StoreError
from meshd.store.bounds import TooLarge
from meshd.store.commands import Commands
from meshd.store.endpoint import Endpoint
from meshd.store.link import Link
from meshd.store.pulse import BLOCK
from meshd.store.refusals import longest_pause
from meshd.system import clock

_WARM = 4
_COLD = 10.0  # seconds after which the way of a connection that was not used may have been forgotten on its way
Found = TypeVar("Found")


class _Place:
    """How far a wait has looked. `has_large`: behind that is an entry that is too large to be read."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.last = "0-0"
        self.has_large = False


class Waiters:
    """A small pool of connections for waits. `commands`: what knows whether the store is up, if anything does."""

    def __init__(self, endpoint: Endpoint, commands: Commands | None = None) -> None:
        self._endpoint = endpoint
        self._commands = commands
        self._idle: list[tuple[Link, Mono]] = []  # with when it was used

    async def first(
        self, stream: str, timeout: float, accept: Callable[[Sequence[bytes]], Found | None]
    ) -> Found | None:
        """What `accept` makes of the fields and values of the stream's first entry that it makes anything of.

        None after `timeout` seconds. Outlives a store outage.
        """
        backoff, place = Backoff(), _Place(stream)
        try:
            async with asyncio.timeout(timeout) as limit:
                while True:
                    try:
                        return await self._wait(await self._link(), place, limit.when(), accept, backoff)
                    except TooLarge:
                        place.has_large = True
                    except StoreError as error:
                        if self._commands is not None:
                            self._commands.check_now()
                            await self._commands.back_up(backoff)
                        await asyncio.sleep(backoff.next(longest_pause(error)))
        except TimeoutError:
            return None

    async def _link(self) -> Link:
        """The one that was used last, if that was a moment ago; else a new one."""
        while self._idle:
            link, used = self._idle.pop()
            if clock.mono() - used < _COLD:
                return link
            await link.close()
        return await Link.open(self._endpoint)

    async def _wait(
        self,
        link: Link,
        place: _Place,
        until: float | None,
        accept: Callable[[Sequence[bytes]], Found | None],
        backoff: Backoff,
    ) -> Found:
        time = asyncio.get_running_loop().time
        if place.has_large:  # nothing that is waited for is so large
            sizes = await link.sizes(place.stream, place.last, 1)
            place.last, place.has_large = (sizes[0].id if sizes else place.last), False
        while True:
            left = BLOCK if until is None else until - time()
            # A little shorter than the deadline, so that the wait ends with a reply and the link is kept.
            for at, raw in await link.read(place.stream, place.last, 1, block=min(BLOCK, max(0.001, left - 0.005))):
                if (found := accept(raw or [])) is not None:
                    await self._keep(link)
                    return found
                place.last = at.decode()
            backoff.reset()
            if until is not None and until - time() < 0.01:
                await self._keep(link)
                raise TimeoutError

    async def _keep(self, link: Link) -> None:
        if len(self._idle) < _WARM:
            self._idle.append((link, clock.mono()))
        else:
            await link.close()

    async def close(self) -> None:
        while self._idle:
            link, _ = self._idle.pop()
            await link.close()
