"""The daemon put together: its parts, and the life of their tasks. What each part does stands with it."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from typing import Any, TypeVar

from meshd import paths
from meshd.core.backoff import Backoff
from meshd.core.names import Keys
from meshd.disk import hosted as hosted_file
from meshd.disk.files import private_dir
from meshd.disk.sentlog import SentLog
from meshd.disk.worker import DiskWorker
from meshd.errors import MeshError
from meshd.hosting.configuration import Configuration
from meshd.hosting.directory import Directory
from meshd.hosting.lease import Leases
from meshd.hosting.names import Names
from meshd.hosting.renewal import Renewal
from meshd.hosting.roster import Roster
from meshd.hosting.sessions import Sessions
from meshd.observing.background import Background
from meshd.observing.events import EventHub
from meshd.observing.outage import Troubles
from meshd.receiving.agent import Agent, Shared
from meshd.receiving.arrivals import Arrivals
from meshd.receiving.broadcasts import GroupReader
from meshd.receiving.changes import Changes
from meshd.sending.acknowledged import Acknowledgements
from meshd.sending.outbox import Outbox
from meshd.sending.replay import Replay
from meshd.sending.requests import Requests
from meshd.service.mcp_process import GatewayProcess
from meshd.settings import Settings
from meshd.store import endpoint
from meshd.store.commands import Commands
from meshd.store.embedded import Embedded
from meshd.store.waits import Waiters
from meshd.system import clock
from meshd.system.clock import mono

T = TypeVar("T", bound=tuple[Any, ...])

log = logging.getLogger("meshd")


class Supervisor:
    """All parts of one daemon, each under its own name. `run` is the daemon's life."""

    def __init__(self, settings: Settings) -> None:
        self.started = clock.wall()
        self.events = EventHub()
        self.configuration = Configuration(settings, self.events)
        for file in (paths.daemon_log(), paths.notify_log("x"), paths.journal("x"), paths.sent_log()):
            private_dir(os.path.dirname(file))
        self.instance = hosted_file.instance(
            os.path.join(paths.state_dir(), "instance"), os.path.join(paths.cache_dir(), "instance")
        )
        self.keys = Keys(settings.prefix)
        self._disk = DiskWorker()
        self.embedded = None if settings.url else Embedded(paths.store_dir(), paths.store_socket_path(), self._disk)
        self.endpoint = self.embedded or self._given(settings)
        if self.embedded is not None:
            self.embedded.prepare()
        self.commands = Commands(self.endpoint, self._store_changed, self._refusal_changed, self.embedded)
        store = f"{settings.prefix} {self.endpoint.shown} {paths.store_dir() if self.embedded else ''}"
        sent = Acknowledgements(SentLog(paths.sent_log()), store)
        self.outbox = Outbox(self._settings, self.keys, self.commands, sent)
        self.commands.first = Replay(self.keys, sent).again
        self.waits = Waiters(self.endpoint, self.commands)
        self.requests = Requests(self.keys, self.outbox, self.waits)
        self.agents: dict[str, Agent] = {}
        self.directory = Directory(self.keys, self.commands, self.agents)
        self.group = GroupReader(self._settings, self.keys, self.endpoint, self.commands, self.directory.heard)
        self.arrivals = Arrivals(self.keys, self.commands, self.group, self.instance)
        self.changes = Changes()
        self.gateway = GatewayProcess()
        self.leases = Leases(self.keys, self.commands, self.waits, self.instance, self.changes)
        self.renewal = Renewal(self.commands, self.leases, self.agents, self.changes)
        shared = Shared(
            settings=self._settings,
            keys=self.keys,
            endpoint=self.endpoint,
            commands=self.commands,
            outbox=self.outbox,
            events=self.events,
            disk=self._disk,
            troubles=Troubles(logging.getLogger("meshd.agent")),
            changes=self.changes,
            keeper=self.leases,
            alone=self.embedded is not None,
        )
        roster = Roster(os.path.join(paths.state_dir(), "hosted.json"), self._disk)
        self.names = Names(self.agents, roster, self.leases, shared, self.group, self.events)
        self.leases.let_go = self.names.let_go
        known = os.path.join(paths.state_dir(), "sessions.json")
        self.sessions = Sessions(known, self.names, self.changes, self.arrivals, self.commands.up.wait)
        self.names.on_hosted = self.sessions.hosted
        self.background = Background(log)
        self._supplied: dict[type, Any] = {}
        self._working: list[asyncio.Task[None]] = []

    def _settings(self) -> Settings:
        return self.configuration.current

    def supply(self, needs: type[T]) -> T:
        """The parts that somebody needs: a named tuple whose fields are their names here."""
        if needs in self._supplied:
            found: T = self._supplied[needs]
            return found
        fields: tuple[str, ...] = needs._fields  # type: ignore[attr-defined]
        made = self._supplied[needs] = needs(*(getattr(self, field) for field in fields))
        return made

    async def run(self, stopping: asyncio.Event) -> None:
        """Host until `stopping` is set; then give everything up in order. The embedded store goes last."""
        self.names.load()
        keep = self.background.keep
        store = [keep(self.commands.run, "the store's connection")]
        if self.embedded is not None:
            store.append(keep(self._keep_embedded, "embedded store"))
        work = [
            keep(self.renewal.run, "what the store is told"),
            keep(self.renewal.keep, "leases"),
            keep(self.directory.keep, "housekeeping"),
            keep(self.names.bring_back, "agents"),
            keep(self.gateway.run, "MCP gateway"),
        ]
        self._working = [*store, *work]
        try:
            await stopping.wait()
        finally:
            self._disk.hurry()
            await _end(work)
            await self.names.stop()
            await self.leases.background.end()
            await self.waits.close()
            await _end(store)
            await self.background.end()
            self._disk.close()

    def failing(self) -> list[str]:
        """What of the daemon's own work has failed lately, a sentence each."""
        return [*self.background.failing.values(), *self.leases.background.failing.values()]

    def stuck(self) -> list[str]:
        """What has stopped working; empty while all is well."""
        return [task.get_name() for task in self._working if task.done()] + self.names.stuck(mono())

    async def _keep_embedded(self) -> None:
        """The store's own restart wrapper: what it cannot mend, `status` shows."""
        assert self.embedded is not None
        backoff = Backoff(base=0.5, cap=10.0)
        while True:
            try:
                await self.embedded.run()
            except (MeshError, OSError) as error:
                self.embedded.failed(str(error))
                await asyncio.sleep(backoff.next())

    def _given(self, settings: Settings) -> endpoint.Endpoint:
        """The store that the configuration names. Its URL may be in a file, where a new password is written."""
        given = endpoint.from_url(settings.url or "", settings.prefix)
        if settings.redis_url_file:
            given.url_now = functools.partial(self._disk.run, lambda: settings.url)
        return given

    def _store_changed(self, up: bool) -> None:
        self.events.publish("store.up" if up else "store.down")
        if up:
            self.renewal.renew_now()

    def _refusal_changed(self, refused: bool) -> None:
        self.events.publish("store.refuses" if refused else "store.accepts")
        self.renewal.renew_now()  # the renewal is what finds out that writes are taken again


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
