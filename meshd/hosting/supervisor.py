"""All agents of this daemon: who is hosted, start and stop, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from meshd import paths, settings
from meshd.core.backoff import Backoff
from meshd.core.names import Keys
from meshd.core.records import Moved, Position
from meshd.disk import hosted as hosted_file
from meshd.disk import legacy
from meshd.disk.files import private_dir
from meshd.disk.hosted import Hosted
from meshd.disk.journal import Journal
from meshd.disk.notify import NotifyLog
from meshd.disk.worker import DiskWorker
from meshd.errors import ConfigError, Full, MeshError, NotAllowed, NotFound, NotReloaded, StoreError, Unreadable
from meshd.hosting.presence import RENEW_EVERY, Presence
from meshd.hosting.sessions import Sessions
from meshd.observing.events import EventHub
from meshd.observing.outage import Outage, Troubles
from meshd.receiving.agent import Agent, Shared
from meshd.receiving.broadcasts import GroupReader
from meshd.sending.outbox import Outbox
from meshd.sending.requests import Requests
from meshd.service.mcp_process import Gateway
from meshd.settings import RESTART_ONLY, Settings
from meshd.store import endpoint
from meshd.store.commands import Commands
from meshd.store.embedded import Embedded
from meshd.store.link import Link
from meshd.store.waits import Waiters

log = logging.getLogger("meshd")

COUNT_ALL = 10_000  # more than a stream's bound
HANDOVER = 2.0  # seconds that a takeover waits for the previous holder's last word
_TRIED = 2.0  # seconds after its start in which it should be known whether the store is there
_TAKEN = "another daemon took it over"


class Supervisor:
    """Hosts agents. `run` is the daemon's life; the rest is what the control socket asks for."""

    def __init__(self, configuration: Settings) -> None:
        self.settings = configuration
        logging.getLogger().setLevel(configuration.log_level.upper())
        self.started = time.time()
        self.keys = Keys(configuration.prefix)
        self.events = EventHub()
        self.agents: dict[str, Agent] = {}
        self.refused: dict[str, str] = {}
        for folder in (paths.state_dir(), paths.cache_dir(), os.path.dirname(paths.journal("x"))):
            private_dir(folder)
        self._hosted_path = os.path.join(paths.state_dir(), "hosted.json")
        self.trouble: ConfigError | None = None  # of the daemon itself: it hosts nobody
        self._hosted = self._load_hosted()
        self.instance = hosted_file.instance(
            os.path.join(paths.state_dir(), "instance"), os.path.join(paths.cache_dir(), "instance")
        )
        url = configuration.url
        self.embedded = None if url else Embedded(paths.store_dir(), paths.store_socket_path())
        self.endpoint = self.embedded or endpoint.from_url(url or "", configuration.prefix)
        if self.embedded is not None:
            self.embedded.prepare()
        room = {"room": self.embedded.room} if self.embedded else {}
        self.commands = Commands(self.endpoint, self._store_changed, self._refusal_changed, **room)
        self.outbox = Outbox(configuration, self.keys, self.commands, secrets.token_hex(8))
        self.waiters = Waiters(self.endpoint)
        self.requests = Requests(self.keys, self.outbox, self.waiters)
        self.presence = Presence(self.keys, self.commands, self.instance, self._lost)
        self.group = GroupReader(
            lambda: self.settings, self.keys, self.endpoint, self.commands, self.presence.heard, self._lost
        )
        self._disk = DiskWorker()
        self._shared = Shared(
            settings=lambda: self.settings,
            keys=self.keys,
            endpoint=self.endpoint,
            commands=self.commands,
            outbox=self.outbox,
            events=self.events,
            disk=self._disk,
            troubles=Troubles(logging.getLogger("meshd.agent")),
            position_changed=self.presence.position_changed,
            registry_changed=self.presence.registry_changed,
            holds=self.presence.holds,
            acquire=self._acquire,
            check_lease=self._check_lease,
        )
        self.sessions = Sessions(
            os.path.join(paths.state_dir(), "sessions.json"),
            self.agents,
            self.host,
            self.unhost,
            self.presence.registry_changed,
            self.commands.up.wait,
        )
        self.gateway = Gateway()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._work: list[asyncio.Task[None]] = []
        self._hosting = asyncio.Lock()
        self._store_back = asyncio.Event()
        self._strays: set[asyncio.Task[None]] = set()

    # --- life ---

    async def run(self, stopping: asyncio.Event) -> None:
        """Host until `stopping` is set; then give everything up in order. The embedded store goes last."""
        for name, hosted in list(self._hosted.items()):
            try:
                self.agents[name] = self._load(name, hosted)
            except (MeshError, OSError) as why:
                self.refused[name] = str(why)  # this one only; its files are as they were
                log.error("%s is not hosted: %s", name, why, extra={"agent": name})
        store = [self._start(self.commands.run(), "commands")]
        if self.embedded is not None:
            store.append(self._start(self._keep_embedded(self.embedded), "embedded store"))
        work = [
            self._start(self.presence.run(), "presence"),
            self._start(self._keep_leases(), "leases"),
            self._start(self._bring_back(list(self.agents.values())), "agents"),
            self._start(self.gateway.run(), "MCP gateway"),
        ]
        self._work = [*store, *work]
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait([stop, *store, *work], return_when=asyncio.FIRST_COMPLETED)
            for task in (*store, *work):
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            await stop
        finally:
            stop.cancel()
            self._disk.hurry()
            await _end(work)
            await self._give_up()
            await self.waiters.close()
            await _end(store)
            self._disk.close()

    def stuck(self) -> list[str]:
        """What has stopped working, agents first; empty while all is well.

        Waiting is work: for mail, for the store to come back, for room on the disk. An agent that could not be
        started is not among them, because starting the daemon anew would not mend that.
        """
        up, mono = self.commands.up.is_set(), time.monotonic()
        ended = [task.get_name() for task in (*self._tasks.values(), *self._work) if task.done()]
        return ended + [f"agent {agent.name}" for agent in self.agents.values() if up and self._stalled(agent, mono)]

    def _stalled(self, agent: Agent, mono: float) -> bool:
        return agent.name in self._tasks and agent.stalled(mono)

    @staticmethod
    def _start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)

    async def _keep_embedded(self, store: Embedded) -> None:
        """The store's own restart wrapper: what it cannot mend, `status` shows."""
        backoff = Backoff(base=0.5, cap=10.0)
        while True:
            try:
                await store.run()
            except (MeshError, OSError) as error:
                store.failed(str(error))
                await asyncio.sleep(backoff.next())

    async def _bring_back(self, agents: list[Agent]) -> None:
        """Start the agents of the last run; the group is read once their leases are known."""
        await self.commands.up.wait()
        await asyncio.gather(*(self._acquire(agent) for agent in agents), return_exceptions=True)
        for agent in agents:
            if self.agents.get(agent.name) is agent:
                self._run_agent(agent)
        await self.group.run()

    async def _give_up(self) -> None:
        """Stop receiving, then release every lease if the store is there to hear it."""
        agents = list(self.agents.values())
        await _end(list(self._tasks.values()))
        await asyncio.gather(*(agent.stop() for agent in agents))
        if self.commands.up.is_set():
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(5):
                    await asyncio.gather(*(self.presence.release(agent) for agent in agents))

    async def _keep_leases(self) -> None:
        """Renew all leases in one go, every 45 s and whenever the store has come back."""
        backoff, trouble = Backoff(), Outage(log)
        while True:
            try:
                await self.commands.up.wait()
                await self.presence.renew(agent for agent in self.agents.values() if agent.leased)
                await self.presence.housekeeping()
            except StoreError as error:
                # What everybody meets is said once, of the store.
                if self.commands.up.is_set() and self.commands.refused is None:
                    trouble.begin(f"leases: {error.message}")
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            trouble.end("leases are renewed again")
            self._store_back.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_EVERY):
                    await self._store_back.wait()

    def _store_changed(self, up: bool) -> None:
        self.events.publish("store.up" if up else "store.down")
        if up:
            self._store_back.set()

    def _refusal_changed(self, refused: bool) -> None:
        self.events.publish("store.refuses" if refused else "store.accepts")
        self._store_back.set()  # the renewal is what finds out that writes are taken again

    # --- hosting ---

    def _load_hosted(self) -> dict[str, Hosted]:
        """Sending and looking need no list of agents: without one that can be read the daemon lives, and says it."""
        try:
            return hosted_file.load(self._hosted_path)
        except ConfigError as error:
            self.trouble = error
            log.error("no agent is hosted: %s", error.message)
            return {}

    def _load(self, name: str, hosted: Hosted) -> Agent:
        agent = Agent(name, hosted, Journal(paths.journal(name), name), NotifyLog(paths.notify_log(name)), self._shared)
        agent.load()
        return agent

    def _run_agent(self, agent: Agent) -> None:
        task = asyncio.create_task(agent.run(), name=f"agent {agent.name}")
        self._tasks[agent.name] = task

    async def host(self, name: str, *, role: str | None = None, stealth: bool = False, takeover: bool = False) -> Agent:
        """Host a name, or tell it a new role. Raises `NotAllowed` naming the holder, `StoreError`, `Full`."""
        async with self._hosting:
            agent = self.agents.get(name)
            if agent is None:
                return await self._host_new(name, Hosted(role or "", time.time(), stealth), takeover)
            old = agent.hosted
            changed = Hosted(old.role if role is None else role, old.since, old.stealth and stealth)
            if changed != old:
                agent.hosted = changed
                self._save_hosted(agent)
            # Said again, it is also what brings a lease back that the store has lost.
            try:
                await self._take(agent, takeover=takeover)
            except NotAllowed:
                await self._part_with(agent, _TAKEN)
                raise
            except StoreError:
                pass
            return agent

    async def _host_new(self, name: str, hosted: Hosted, takeover: bool) -> Agent:
        if self.trouble is not None:  # the list would be written, and what is in it lost
            raise Unreadable(self.trouble.message, self.trouble.hint)
        try:
            agent = self._load(name, hosted)
        except ConfigError as error:
            raise Unreadable(error.message, error.hint) from None
        except OSError as error:
            raise Full(f"cannot open the journal of {name}: {error}", f"check {paths.journal(name)}") from None
        try:
            await self._take(agent, takeover=takeover)
            self._save_hosted(agent)
        except BaseException:
            self._hosted.pop(name, None)
            await agent.stop()
            with contextlib.suppress(StoreError):
                await self.presence.release(agent)
            raise
        self.agents[name] = agent
        self.refused.pop(name, None)
        self._run_agent(agent)
        await self.group.admit(agent)
        self.sessions.hosted(name)
        self.events.publish("agent.registered", agent=name)
        return agent

    async def _acquire(self, agent: Agent, gone: str | None = None) -> bool:
        """For a hosted agent: its lease again, or, with the words `gone`, the news that somebody else has it."""
        try:
            await self._take(agent, takeover=False)
        except (NotAllowed, NotFound) as error:
            agent.leased = False
            self._background(self._let_go(agent, gone or error.message), f"let go of {agent.name}")
            return False
        await self.group.admit(agent)
        return True

    async def _take(self, agent: Agent, *, takeover: bool) -> None:
        """Acquire the lease, and go on where the name was read, wherever that was."""
        async with agent.leasing:
            agent.check_hosted()
            agent.renewed = await self._move_in(agent, takeover=takeover)
            agent.leased = True
        agent.wake_waiters()

    async def _move_in(self, agent: Agent, *, takeover: bool) -> float:
        """When it was asked for."""
        taken = await self.presence.acquire(agent, takeover=takeover)
        read = taken.read
        if taken.nonce is not None:
            # Whoever held it answers once it has let go, and has then written how far it was read.
            await self.waiters.first(self.keys.pong(taken.nonce), HANDOVER, list)
            read = await self.presence.read_record(agent.name)
        inbox = agent.core.inbox
        if read is None and inbox.group is None:
            await self._begin(agent, taken.group_last)
        elif read is not None:
            if read.group is None and inbox.group is None:
                read.group = taken.group_last
            await agent.execute(functools.partial(agent.core.move, read))
        return taken.asked

    async def _begin(self, agent: Agent, group_last: str) -> None:
        """A name that nobody has hosted: from 0.1's cursor if it left one, else all that the store holds."""
        left = legacy.find(agent.name, paths.cache_dir())
        link = await Link.open(self.endpoint)
        try:
            info, entries = await link.probe(self.keys.inbox(agent.name), left.cursor, COUNT_ALL)
        finally:
            await link.close()
        index = max(0, info.added - len(entries))
        place = Moved(position=Position(left.cursor, index), group=group_last, read_to=left.cursor)
        await agent.execute(lambda: [*agent.core.move(place), *agent.core.adopt(left.entries)])
        left.mark_taken()

    def _save_hosted(self, agent: Agent) -> None:
        self._hosted[agent.name] = agent.hosted
        self._write_hosted()

    def _write_hosted(self) -> None:
        try:
            hosted_file.save(self._hosted_path, self._hosted)
        except OSError as error:
            raise Full(f"cannot write {self._hosted_path}: {error.strerror}", "free space there") from None

    async def unhost(self, name: str) -> None:
        """Stop hosting a name and give its lease up. Its mail stays, read and unread. Raises `NotFound`."""
        async with self._hosting:
            if name not in self.agents:
                raise NotFound(f"{name} is not hosted here", "meshctl who")
            await self._drop(name, NotFound(f"{name} was deregistered", f"meshctl register {name}"))
            self.events.publish("agent.deregistered", agent=name)

    async def _drop(self, name: str, why: MeshError) -> None:
        agent = self.agents.pop(name)
        agent.gone = why
        self._hosted.pop(name, None)
        self.group.dismiss(name)
        await _end([self._tasks.pop(name)] if name in self._tasks else [])
        await agent.stop()
        agent.wake_waiters()
        # Last, because either may fail, and by then nothing of the agent runs here any more.
        try:
            self._write_hosted()
        finally:
            await self.presence.release(agent)

    async def _check_lease(self, agent: Agent) -> None:
        """Somebody says that the name was taken over: look, and let go if it is so."""
        with contextlib.suppress(StoreError):
            if not agent.leased or not await self.presence.renewed(agent):
                agent.leased = False
                await self.presence.write_position(agent)  # before the ping is answered: the new holder waits for it
                self._lost(agent)

    def _lost(self, agent: Agent) -> None:
        """Its lease is not ours, or that is not known: nothing is received or handed out before it is."""
        agent.leased = False
        self._background(self._regain(agent), f"regain {agent.name}")

    async def _regain(self, agent: Agent) -> None:
        with contextlib.suppress(StoreError, Full):  # its reader tries it again
            await self.presence.write_position(agent)
            if await self._acquire(agent, _TAKEN):
                self.presence.position_changed(agent)

    async def hold(self, agent: Agent) -> None:
        """Before its mail is handed out: be sure of the lease. Raises `NotAllowed`, `NotFound`, `StoreError`."""
        if not self.commands.tried.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TRIED):
                    await self.commands.tried.wait()
        if not self.presence.may_hand_out(agent) and not await self._acquire(agent, _TAKEN):
            await self._let_go(agent, _TAKEN)
            agent.check_hosted()

    async def _let_go(self, agent: Agent, why: str) -> None:
        async with self._hosting:
            await self._part_with(agent, why)

    async def _part_with(self, agent: Agent, why: str) -> None:
        if self.agents.get(agent.name) is agent:
            about = {"agent": agent.name, "event": "agent.moved"}
            log.warning("%s: %s; not hosted here any more", agent.name, why, extra=about)
            agent.leased = False
            moved = NotAllowed(f"{agent.name}: {why}", f"meshctl register {agent.name} --takeover moves it here")
            try:
                await self._drop(agent.name, moved)
            except (StoreError, Full) as error:
                log.error("%s: %s", agent.name, error.message, extra=about)
            self.events.publish("agent.moved", agent=agent.name, why=why)

    def is_sure(self, agent: Agent) -> bool:
        """Whether its mail may be handed out now. If not, that is looked into, and whoever waits is woken."""
        sure = self.presence.may_hand_out(agent)
        if not sure and agent.leased and self.commands.up.is_set():
            self._lost(agent)
        return sure

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._strays.add(task)
        task.add_done_callback(self._strays.discard)

    # --- configuration ---

    def reload(self) -> str:
        """Read the configuration again. What was done, in a sentence. Raises `NotReloaded`: the old one is kept."""
        try:
            fresh = settings.load()
        except ConfigError as error:
            log.error("configuration not changed: %s", error.message)
            self.events.publish("config.refused", why=error.message)
            raise NotReloaded(f"not changed: {error.message}", error.hint) from None
        fixed = {key: getattr(self.settings, key) for key in RESTART_ONLY}
        waiting = [key for key, value in fixed.items() if getattr(fresh, key) != value]
        self.settings = msgspec.structs.replace(fresh, **fixed)
        logging.getLogger().setLevel(fresh.log_level.upper())
        self.outbox.settings = self.settings
        said = "configuration read again"
        if waiting:
            said += f"; {', '.join(waiting)} changes at the next start"
        log.info(said)
        self.events.publish("config.reloaded", waiting=waiting)
        return said


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
