"""A daemon in this process, and ways to break what belongs to one of its agents."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd import settings
from meshd.commands.base import Call, Result
from meshd.commands.reading import InboxParams, Reading, inbox
from meshd.commands.watch import Watching, WatchParams, watch
from meshd.core.names import new_id
from meshd.core.records import Record
from meshd.disk.journal import Journal
from meshd.hosting import names
from meshd.hosting.supervisor import Supervisor
from meshd.receiving.agent import Agent
from meshd.receiving.reader import Reader
from meshd.store.link import Link
from tests.helper import DEADLINE, Store, eventually


class Here(Call):
    """A call of a command in this process."""

    async def emit(self, result: Result) -> None:
        raise NotImplementedError


class Hang:
    """A disk that does not answer: whoever comes while it is `on` waits until it is let go."""

    def __init__(self) -> None:
        self.on = False
        self.came = self.waiting = 0
        self._go_on = threading.Event()
        self._lock = threading.Lock()

    def begin(self) -> None:
        self._go_on.clear()
        self.on = True

    def wait(self) -> None:
        self.came += 1
        if self.on:
            with self._lock:
                self.waiting += 1
            assert self._go_on.wait(2 * DEADLINE)
            with self._lock:
                self.waiting -= 1

    def let_go(self) -> None:
        self.on = False
        self._go_on.set()


class Daemon:
    """All of one in this process, but for its control socket. `hangs`: the disks of journals, by their agents."""

    def __init__(self, folder: Path, store: Store, prefix: str) -> None:
        self.folder = folder
        self.prefix = prefix
        self.store: Any = store.client()
        self.hangs: dict[str, Hang] = {}
        self.connections: dict[str, int] = {}  # of readers, as the store numbers them, by their agents
        self.mesh: Supervisor
        self._stopping: asyncio.Event
        self._running: asyncio.Task[None]

    async def start(self) -> None:
        self.mesh, self._stopping = Supervisor(settings.load()), asyncio.Event()
        self._running = asyncio.create_task(self.mesh.run(self._stopping))
        await eventually(self.mesh.commands.up.is_set, "the store is up")

    async def stop(self) -> None:
        for hang in self.hangs.values():
            hang.let_go()
        self._stopping.set()
        await self._running

    def hang(self, name: str) -> Hang:
        return self.hangs.setdefault(name, Hang())

    # --- agents ---

    async def host(self, name: str) -> Agent:
        """Hosted, and receiving."""
        agent = await self.mesh.names.host(name)
        await eventually(lambda: agent.health.caught_up, f"{name} receives")
        return agent

    def agent(self, name: str) -> Agent:
        return self.mesh.agents[name]

    async def inbox(self, name: str) -> Result:
        """What the command gives, which was not confirmed yet."""
        return await inbox(
            Here(self.mesh.names, self.mesh.configuration, None), InboxParams(name=name), self.mesh.supply(Reading)
        )

    async def watch(self, name: str, lines: list[str]) -> None:
        """What the command prints goes to `lines`, until this is cancelled."""

        class Printing(Here):
            async def emit(self, result: Result) -> None:
                lines.append(result.data["line"])

        call = Printing(self.mesh.names, self.mesh.configuration, None)
        await watch(call, WatchParams(name=name), self.mesh.supply(Watching))

    # --- files ---

    def journal(self, name: str) -> Path:
        return self.folder / "state" / "agent-mesh" / "agents" / f"{name}.journal"

    def notify(self, name: str) -> Path:
        return self.folder / "cache" / "agent-mesh" / f"notify-{name}.log"

    def lines(self, name: str) -> list[str]:
        path = self.notify(name)
        return path.read_text().splitlines() if path.is_file() else []

    # --- mail ---

    def send(self, name: str, text: str, sender: str = "alice", **more: str | bytes | int) -> None:
        """A private message, whose id is its text."""
        fields = {"from": sender, "msg": text, "ts": "1", "id": text, **more}
        self.store.xadd(f"{self.prefix}:to_{name}", fields)

    def broadcast(self, text: str, sender: str = "alice", **more: str | bytes | int) -> None:
        self.store.xadd(f"{self.prefix}:group", {"from": sender, "to": "*", "msg": text, "ts": "1", "id": text, **more})


@contextlib.asynccontextmanager
async def a_daemon(folder: Path, store: Store, prefix: str) -> AsyncIterator[Daemon]:
    """Running; its journals can be made to hang, and its readers' connections are known."""
    daemon = Daemon(folder, store, prefix)
    follow = Reader._follow

    async def follow_known(reader: Reader, link: Link, stream: str) -> None:
        daemon.connections[reader._agent.name] = await link.call("CLIENT", "ID")
        await follow(reader, link, stream)

    class HangingJournal(Journal):
        def append(self, records: Iterable[Record]) -> None:
            daemon.hang(self.name).wait()
            super().append(records)

    variables = {
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "AGENT_MESH_REDIS_URL": store.url,
        "AGENT_MESH_PREFIX": prefix,
    }
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in variables.items():
            patch.setenv(variable, value)
        patch.setattr(names, "Journal", HangingJournal)
        patch.setattr(Reader, "_follow", follow_known)
        await daemon.start()
        try:
            yield daemon
        finally:
            await daemon.stop()
            daemon.store.close()


def obstruct(path: Path) -> None:
    """Put a folder where the file is: nothing can be written there. What the file had is kept beside it."""
    if path.exists():
        path.rename(path.with_suffix(".aside"))
    (path / "in the way").mkdir(parents=True)


def clear(path: Path) -> None:
    """Take the folder away; the file that was there comes back."""
    (path / "in the way").rmdir()
    path.rmdir()
    aside = path.with_suffix(".aside")
    if aside.exists():
        aside.rename(path)


@contextlib.contextmanager
def obstructed(path: Path) -> Iterator[None]:
    obstruct(path)
    try:
        yield
    finally:
        clear(path)


def has(daemon: Daemon, name: str, *ids: str) -> Callable[[], bool]:
    """Whether these are unread in its inbox."""
    return lambda: set(ids) <= set(daemon.agent(name).core.inbox.unread)


def read_elsewhere(daemon: Daemon, name: str, at: str) -> None:
    """Another daemon had the name, and has read up to there."""
    record = f'{{"p":"{at}","i":1,"g":"0-0","x":["{new_id()}"],"b":"another"}}'
    daemon.store.set(f"{daemon.prefix}:read:{name}", record)
