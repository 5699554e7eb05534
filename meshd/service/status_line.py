"""The one line that `systemctl --user status meshd` shows: agents, store, pending."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

from meshd.service.sd_notify import Notifier

PAUSE = 0.25  # seconds: a flood of mail is four lines a second


class StatusFacts(NamedTuple):
    """How the daemon is, in numbers; of the store, what is known of it."""

    agents: int
    troubled: int  # agents that suffer from something of their own, and those that could not be started
    pending: int
    unread: int
    store_up: bool
    store_tried: bool  # it has answered, or failed to
    server: str  # as in `valkey 8.1.4`; empty if unknown
    store_trouble: str


def line(facts: StatusFacts) -> str:
    """As in `2 agents; store up (valkey 8.1.4); 1 reply pending, 3 unread`."""
    hosted = f"{_count(facts.agents, 'agent')}{f', {facts.troubled} in trouble' if facts.troubled else ''}"
    pending = _count(facts.pending, "reply", "replies")
    return f"{hosted}; {_store(facts)}; {pending} pending, {facts.unread} unread"


def _store(facts: StatusFacts) -> str:
    if facts.store_up:
        return f"store up ({facts.server})" if facts.server else "store up"
    if not facts.store_tried:
        return "connecting to the store"
    return f"store down: {facts.store_trouble}" if facts.store_trouble else "store down"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


async def show(notifier: Notifier, changed: asyncio.Event, now: Callable[[], str], longest: float) -> None:
    """Until cancelled: the line whenever something `changed`, and looked at again after `longest` seconds."""
    while True:
        changed.clear()
        notifier.status(now())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await changed.wait()
        await asyncio.sleep(PAUSE)
