"""The one line that `systemctl --user status meshd` shows: agents, store, pending."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

from meshd.receiving.agent import Agent
from meshd.service.sd_notify import Notifier
from meshd.store.commands import Commands

PAUSE = 0.25  # seconds: a flood of mail is four lines a second


def line(agents: Collection[Agent], refused: int, commands: Commands) -> str:
    """As in `2 agents; store up (valkey 8.1.4); 1 reply pending, 3 unread`."""
    troubled = sum(agent.health.trouble is not None and not agent.health.of_store for agent in agents) + refused
    pending = sum(len(agent.core.ledger.entries) for agent in agents)
    unread = sum(len(agent.core.inbox.unread) for agent in agents)
    hosted = f"{_count(len(agents), 'agent')}{f', {troubled} in trouble' if troubled else ''}"
    return f"{hosted}; {_store(commands)}; {_count(pending, 'reply', 'replies')} pending, {unread} unread"


def _store(commands: Commands) -> str:
    if commands.up.is_set():
        return f"store up ({' '.join(commands.server)})" if commands.server else "store up"
    if not commands.tried.is_set():
        return "connecting to the store"
    return f"store down: {commands.trouble.message}" if commands.trouble else "store down"


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
