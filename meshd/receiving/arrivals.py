"""What the store has for an agent at this moment: waited for by whoever is about to read its mail."""

from __future__ import annotations

import asyncio
import contextlib

from meshd.core.names import Keys
from meshd.errors import StoreError
from meshd.receiving.agent import Agent
from meshd.receiving.broadcasts import GroupReader
from meshd.store.commands import Commands
from meshd.store.scripts import latest as scripts
from meshd.system.clock import now

_FRESH = 2.0  # seconds that a reading command waits for what the store already has


class Arrivals:
    """Asks the store how far its streams go."""

    def __init__(self, keys: Keys, commands: Commands, group: GroupReader, instance: str) -> None:
        self._keys = keys
        self._instance = instance
        self._commands = commands
        self._group = group

    async def fresh(self, agent: Agent) -> bool:
        """Wait until the agent has what the store had at this moment; False if that is not known in time."""
        commands, keys, group = self._commands, self._keys, self._group
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_FRESH):
                if not commands.up.is_set():
                    return False
                asked = now()
                latest = await commands.script(scripts.latest(keys, agent.name))
                # The same answer is what makes sure of the lease.
                if latest.holder == self._instance:
                    agent.lease.proven(asked)
                else:
                    agent.lease.lost()
                with agent.changed.awaited() as changed:
                    while agent.gone is None and not (
                        agent.reader.has_read(latest.private) and group.has_read(agent, latest.group)
                    ):
                        await changed.wait()
                        changed.clear()
                return True
        return False
