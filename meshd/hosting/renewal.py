"""What the store is told of this daemon's names: leases are renewed, and what changed is written soon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping

from meshd.core.backoff import Backoff
from meshd.core.lease import RENEW_EVERY
from meshd.errors import StoreError
from meshd.hosting.lease import Leases
from meshd.observing.outage import Outage
from meshd.receiving.agent import Agent
from meshd.receiving.changes import Changes
from meshd.store.commands import Commands
from meshd.system.clock import mono

log = logging.getLogger("meshd.lease")

REGISTRY_PAUSE = 2.0  # seconds between two writings of registry entries that changed


class Renewal:
    """Tells the store, in its own time: `keep` and `run` go on until they are cancelled."""

    def __init__(self, commands: Commands, leases: Leases, agents: Mapping[str, Agent], changes: Changes) -> None:
        self._commands = commands
        self._leases = leases
        self._agents = agents
        self._changes = changes
        self._store_back = asyncio.Event()

    async def keep(self) -> None:
        """Renew all leases in one go, every 45 s and whenever the store has come back, until cancelled."""
        backoff, trouble = Backoff(), Outage(log)
        while True:
            try:
                await self._commands.up.wait()
                await self.renew(self._agents.values())
            except StoreError as error:
                # What everybody meets is said once, of the store.
                if self._commands.up.is_set() and self._commands.refused is None:
                    trouble.begin(f"leases: {error.message}")
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            trouble.end("leases are renewed again")
            self._store_back.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_EVERY):
                    await self._store_back.wait()

    def renew_now(self) -> None:
        """The store has come back, or takes writes again."""
        self._store_back.set()

    async def renew(self, agents: Iterable[Agent]) -> None:
        """Renew each lease and registry entry; those that are not ours any more are asked for anew."""
        held = [agent for agent in agents if agent.lease.ours]
        answers = await asyncio.gather(*map(self._leases.renew, held), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def run(self) -> None:
        """Write read positions as soon as they change, registry entries at most every two seconds."""
        next_registry = 0.0
        backoff, changes = Backoff(), self._changes
        while True:
            await changes.wanted.wait()
            changes.wanted.clear()
            await self._commands.up.wait()
            if await self._flush_positions():
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next())
            if not changes.any_shown:
                continue
            pause = next_registry - mono()
            if pause > 0:
                asyncio.get_running_loop().call_later(pause, changes.wanted.set)
                continue
            next_registry = mono() + REGISTRY_PAUSE
            try:
                await self.renew(changes.take_shown())
            except StoreError as error:
                log.debug("registry not written: %s", error.message)  # the renewal writes it again

    async def _flush_positions(self) -> bool:
        """False if the store did not take them; they are wanted again."""
        held = [agent for agent in self._changes.take_read() if agent.lease.ours]
        answers = await asyncio.gather(*map(self._leases.write_position, held), return_exceptions=True)
        failed = False
        for agent, answer in zip(held, answers, strict=True):
            if isinstance(answer, StoreError):
                failed = True
                self._changes.read(agent)
            elif isinstance(answer, BaseException):
                raise answer
            elif not answer:
                self._leases.lost(agent)
        return not failed
