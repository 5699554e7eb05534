"""To the store as soon as it is there: an attempt that hangs may hang for ever, so another one is begun beside it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from meshd.errors import StoreDown
from meshd.observing.background import owned
from meshd.store.endpoint import Endpoint
from meshd.store.greeting import StoreVersion, greet
from meshd.store.link import Link
from meshd.store.refusals import Unauthorized

_BESIDE = 0.5  # seconds until the next attempt
_LONGEST = 8.0  # seconds of one of them


class Reached(NamedTuple):
    """An open connection, and what answers there."""

    link: Link
    server: StoreVersion


async def reach(endpoint: Endpoint, bound: int, timeout: float) -> Reached:
    """Connect and greet. `bound`: bytes of a reply; `timeout`: seconds for each of the greeting's answers.

    A way that swallows all that is said takes connections, and never lets go of them; when it is whole again, only a
    new one passes. Raises the `StoreError` of the first attempt that fails.
    """
    attempts: list[asyncio.Task[Reached]] = []
    try:
        while True:
            attempts.append(owned(_attempt(endpoint, bound, timeout), "an attempt to connect"))
            done, _ = await asyncio.wait(attempts, timeout=_BESIDE, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                found = attempt.result()
                attempts.remove(attempt)
                return found
    finally:
        for attempt in attempts:
            attempt.cancel()
        for left in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(left, Reached):
                await left.link.close()


async def _attempt(endpoint: Endpoint, bound: int, timeout: float) -> Reached:
    try:
        async with asyncio.timeout(_LONGEST):
            try:
                return await _connect(endpoint, bound, timeout)
            except Unauthorized:
                if not await endpoint.renew():
                    raise
                return await _connect(endpoint, bound, timeout)
    except TimeoutError:
        raise StoreDown(f"the store {endpoint.shown} is out of reach: no answer in time", "meshctl doctor") from None


async def _connect(endpoint: Endpoint, bound: int, timeout: float) -> Reached:
    link = await Link.open(endpoint, first=True, bound=bound)
    try:
        return Reached(link, await greet(link, timeout))
    except BaseException:
        await link.close()
        raise
