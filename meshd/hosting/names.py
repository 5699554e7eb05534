"""Which names are hosted here: a name is hosted, given up, or let go because another daemon has it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Callable
from typing import NamedTuple

from meshd import paths
from meshd.disk import legacy
from meshd.disk.hosted import Hosted
from meshd.disk.journal import Journal
from meshd.disk.notify import NotifyLog
from meshd.errors import ConfigError, Full, MeshError, NotAllowed, NotFound, Stopping, StoreError, Unreadable
from meshd.hosting.lease import TAKEN, Leases, Taken
from meshd.hosting.roster import Roster
from meshd.observing.events import EventHub
from meshd.receiving.agent import Agent, Shared
from meshd.receiving.broadcasts import GroupReader
from meshd.system import clock

log = logging.getLogger("meshd")

RELEASE_TIME = 5.0  # seconds that a daemon which stops gives to the store


class Registered(NamedTuple):
    """A name that is hosted here now, and how it came here."""

    agent: Agent
    taken: Taken


class Names:
    """All agents of this daemon. `refused`: names that are on the list and cannot be hosted, and why.

    `on_hosted(name)` is called when a name is hosted.
    """

    def __init__(
        self,
        agents: dict[str, Agent],
        roster: Roster,
        leases: Leases,
        shared: Shared,
        group: GroupReader,
        events: EventHub,
    ) -> None:
        self.agents = agents
        self.refused: dict[str, str] = {}
        self.on_hosted: Callable[[str], None] = lambda name: None
        self._roster = roster
        self._group = group
        self._events = events
        self._leases = leases
        self._shared = shared
        self._stopping = False
        # One step for a name at a time, and any number of names at once.
        self._steps: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @property
    def trouble(self) -> ConfigError | None:
        """Why nobody is hosted: the list of names cannot be read."""
        return self._roster.trouble

    # --- the names of the last run ---

    def load(self) -> None:
        """Those that were hosted when the daemon stopped. Blocks."""
        for name, hosted in self._roster.load().items():
            try:
                self.agents[name] = self._load(name, hosted)
            except (MeshError, OSError) as why:
                self.refused[name] = str(why)  # this one only; its files are as they were
                log.error("%s is not hosted: %s", name, why, extra={"agent": name})
        if self.trouble is not None:
            log.error("no agent is hosted: %s", self.trouble.message)

    async def bring_back(self) -> None:
        """Start the agents of the last run, once the store is there, and read the group for all.

        Each asks for its own lease: one whose disk does not take what that brings keeps nobody else.
        """
        await self._shared.commands.up.wait()
        for agent in self.agents.values():
            if not agent.is_running:
                agent.start()
            self._group.admit(agent)
        await self._group.run()

    def _load(self, name: str, hosted: Hosted) -> Agent:
        agent = Agent(name, hosted, Journal(paths.journal(name), name), NotifyLog(paths.notify_log(name)), self._shared)
        agent.load()
        if agent.core.inbox.group is None:
            agent.legacy = legacy.find(name, paths.legacy_dir())
        return agent

    # --- hosting ---

    def _step(self, name: str) -> asyncio.Lock:
        lock = self._steps.get(name)
        if lock is None:
            lock = self._steps[name] = asyncio.Lock()
        return lock

    async def host(self, name: str, *, role: str | None = None, stealth: bool = False) -> Agent:
        """Host a name, or tell it a new role. Raises `NotAllowed` naming the holder, `StoreError`, `Full`."""
        return (await self.register(name, role=role, stealth=stealth)).agent

    async def register(
        self, name: str, *, role: str | None = None, stealth: bool = False, takeover: bool = False
    ) -> Registered:
        """As `host`; with `takeover` from the daemon that holds the name."""
        async with self._step(name):
            agent = self.agents.get(name)
            if agent is None:
                return await self._host_new(name, Hosted(role or "", clock.wall(), stealth), takeover)
            old = agent.hosted
            changed = Hosted(old.role if role is None else role, old.since, old.stealth and stealth)
            if changed != old:
                agent.hosted = changed
                await self._roster.add(name, changed)
            # Said again, it is also what brings a lease back that the store has lost.
            taken = Taken()
            try:
                taken = await self._leases.take(agent, takeover=takeover)
            except NotAllowed:
                await self._part_with(agent, TAKEN)
                raise
            except StoreError:
                pass
            return Registered(agent, taken)

    async def _host_new(self, name: str, hosted: Hosted, takeover: bool) -> Registered:
        if self.trouble is not None:  # the list would be written, and what is in it lost
            raise Unreadable(self.trouble.message, self.trouble.hint)
        loaded: list[Agent] = []
        try:
            await self._shared.disk.run(lambda: loaded.append(self._load(name, hosted)))
        except ConfigError as error:
            raise Unreadable(error.message, error.hint) from None
        except OSError as error:
            raise Full(f"cannot open the journal of {name}: {error}", f"check {paths.journal(name)}") from None
        (agent,) = loaded
        try:
            taken = await self._leases.take(agent, takeover=takeover)
            await self._roster.add(name, hosted)
        except BaseException as error:
            why = error if isinstance(error, MeshError) else _deregistered(name)
            # In its own time: who gives up to wait for the store does not wait for it once more.
            self._leases.background.start(self._abandon(agent, why), f"abandon {name}")
            raise
        self.agents[name] = agent
        self.refused.pop(name, None)
        agent.start()
        self._group.admit(agent)
        self.on_hosted(name)
        self._events.publish("agent.registered", agent=name)
        return Registered(agent, taken)

    async def _abandon(self, agent: Agent, why: MeshError) -> None:
        """It was not hosted after all. Whether the store has given its lease may not be known."""
        async with self._step(agent.name):
            if agent.name not in self.agents:  # else it was hosted by another attempt, whose lease is the same
                with contextlib.suppress(StoreError):
                    await self._leases.release(agent)
            await agent.end(why)

    # --- giving up ---

    async def unhost(self, name: str) -> None:
        """Stop hosting a name and give its lease up. Its mail stays, read and unread. Raises `NotFound`."""
        async with self._step(name):
            if (agent := self.agents.get(name)) is None:
                if name in self.refused:
                    del self.refused[name]
                    await self._roster.remove(name)
                    return
                raise NotFound(f"{name} is not hosted here", "meshctl who")
            await self._drop(agent, _deregistered(name))
            self._events.publish("agent.deregistered", agent=name)

    async def let_go(self, agent: Agent, why: str) -> None:
        """Another daemon has the name: host it no more."""
        async with self._step(agent.name):
            await self._part_with(agent, why)

    async def _part_with(self, agent: Agent, why: str) -> None:
        # A daemon that stops has given its leases up, which is no reason to forget who is hosted.
        if self.agents.get(agent.name) is not agent or self._stopping:
            return
        about = {"agent": agent.name, "event": "agent.moved"}
        log.warning("%s: %s; not hosted here any more", agent.name, why, extra=about)
        moved = NotAllowed(f"{agent.name}: {why}", f"meshctl register {agent.name} --takeover moves it here")
        try:
            await self._drop(agent, moved)
        except (StoreError, Full) as error:
            log.error("%s: %s", agent.name, error.message, extra=about)
        self._events.publish("agent.moved", agent=agent.name, why=why)

    async def _drop(self, agent: Agent, why: MeshError) -> None:
        """Host it no more, whatever fails of what belongs to that. Raises `StoreError`, `Full` when it is done."""
        del self.agents[agent.name]
        self._group.dismiss(agent.name)
        try:
            await self._leases.release(agent)
        finally:
            await agent.end(why)
            await self._roster.remove(agent.name)

    async def stop(self) -> None:
        """The daemon stops: release every lease if the store is there to hear it, and receive no more."""
        self._stopping = True
        agents = list(self.agents.values())
        if self._shared.commands.up.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_TIME):
                    await asyncio.gather(*map(self._leases.release, agents), return_exceptions=True)
        stopping = Stopping("the daemon is stopping", "meshctl up")
        await asyncio.gather(*(agent.end(stopping) for agent in agents))

    # --- how they are ---

    def stuck(self, mono: float) -> list[str]:
        """Agents that have stopped working, while the store is up; `mono` in monotonic seconds.

        Waiting is work: for mail, or for room on the disk. An agent that could not be started is not among them,
        because starting the daemon anew would not mend that.
        """
        if not self._shared.commands.up.is_set():
            return []
        agents = [f"agent {agent.name}" for agent in self.agents.values() if agent.stuck(mono)]
        return agents + (["broadcasts"] if self._group.stalled(mono) else [])


def _deregistered(name: str) -> NotFound:
    return NotFound(f"{name} was deregistered", f"meshctl register {name}")
