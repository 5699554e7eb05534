"""One agent's trouble is its own: through random histories, its neighbour's run is the same as a run without it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshd.commands.base import Result
from meshd.errors import MeshError
from meshd.observing.events import Subscription
from meshd.receiving import arrivals, executor
from tests.faults.machines import ROUNDS
from tests.helper import Store, eventually
from tests.receiving.daemon import Daemon, a_daemon, clear, obstruct

GOOD, BROKEN = "dora", "bob"
HUGE = 40_000_000  # bytes of an entry that nobody reads
PATIENCE = 90.0  # seconds; there for what hangs alone, for a busy machine takes its time over what is huge

Step = tuple[Any, ...]
Run = dict[str, Any]

# What can be wrong with one agent, and with it alone.
WAYS = (
    "its notify log is a folder",
    "its notify log's folder is gone",
    "its journal is a folder",
    "its disk hangs",
    "its stream is no stream",
    "its stream has a huge entry",
)
names = st.sampled_from([GOOD, BROKEN])
junk = st.lists(
    st.tuples(st.sampled_from([b"from", b"msg", b"id", b"n", b"sid", b"to"]) | st.binary(), st.binary()), min_size=1
)
deep = st.integers(1, 200_000).map(lambda depth: [(b"from", b"[" * depth), (b"msg", b'{"a":' * (depth // 5))])
steps = st.one_of(
    st.tuples(st.just("send"), names, st.integers(1, 5)),
    st.tuples(st.just("broadcast"), st.integers(1, 5)),
    st.tuples(st.just("lose"), st.booleans(), st.integers(1, 9)),
    st.tuples(st.just("read"), names),
    st.tuples(st.just("break"), st.sampled_from(WAYS)),
    st.tuples(st.just("junk"), junk | deep),
    st.tuples(st.just("cut"), st.integers(1, 3)),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.sampled_from(["mend", "deregister", "register"])),
)


class History:
    """One run of a history, with the broken agent or without it."""

    def __init__(self, daemon: Daemon, *, whole: bool) -> None:
        self.daemon = daemon
        self.whole = whole
        self.wrong: set[str] = set()
        self.run: Run = {"direct": [], "broadcast": [], "lost": [], "troubles": [], "restarts": 0}
        self._events: Subscription
        self._had: set[str] = set()
        self._expected: set[str] = set()
        self._texts = map("m{}".format, itertools.count())
        self._losing = {False: 1, True: 1}  # what was counted last, to her and to all
        self._beside: list[asyncio.Task[Any]] = []

    async def go(self, history: list[Step]) -> Run:
        await self._follow_events()
        await self.daemon.host(GOOD)
        if self.whole:
            await self.daemon.host(BROKEN)
        for everyone in (False, True):
            self._count(everyone, 1)
        await self._all_there()
        for name, *arguments in history:
            await getattr(self, f"_{name}")(*arguments)
            await self._all_there()
        if self.whole:
            await self._is_well_again()
        else:
            self._text("send", BROKEN)
            self._text("broadcast")
        await self._all_there()
        await self._read(GOOD)
        await self._all_confirmed()
        self._note_events()
        agent = self.daemon.agent(GOOD)
        lines = self.daemon.lines
        await eventually(lambda: len(lines(GOOD)) >= len(self._expected), "all are in its notify log", PATIENCE)
        mine = [line for line in lines(GOOD) if "📢" not in line and "broadcast" not in line]
        return self.run | {
            "lines": mine,
            "lines of all": [line for line in lines(GOOD) if line not in mine],
            "trouble": agent.health.trouble,
            "unread": len(agent.core.inbox.unread),
            "losses": agent.core.inbox.losses.total,
            "handed": len(agent.handovers),
        }

    async def _all_there(self) -> None:
        """She has what was sent to her so far: none of it waits for the other one."""
        inbox = self.daemon.agent(GOOD).core.inbox
        await eventually(
            lambda: self._expected <= self._had | set(inbox.unread), f"{self.wrong}: all are there", PATIENCE
        )

    # --- what is sent ---

    def _text(self, how: str, name: str = GOOD, **more: Any) -> None:
        text = next(self._texts)
        if how == "broadcast":
            self.daemon.broadcast(text, **more)
        else:
            with contextlib.suppress(redis.ResponseError):  # what is there is no stream
                self.daemon.send(name, text, **more)
        if name == GOOD:
            self._expected.add(text)

    async def _send(self, name: str, count: int) -> None:
        for _ in range(count):
            self._text("send", name)

    async def _broadcast(self, count: int) -> None:
        for _ in range(count):
            self._text("broadcast")

    async def _lose(self, everyone: bool, count: int) -> None:
        self._count(everyone, self._losing[everyone] + count + 1)

    def _count(self, everyone: bool, n: int) -> None:
        """A message whose sender has counted on: what it left out was lost on the way."""
        self._losing[everyone] = n
        self._text("broadcast" if everyone else "send", sid="5e", n=n)

    # --- what is read ---

    async def _read(self, name: str) -> None:
        if name == GOOD:
            self._note(await self.daemon.inbox(name))
            return
        if not self.whole:
            return
        with contextlib.suppress(MeshError):
            result = await self.daemon.inbox(name)
            if result.handover is not None:
                self._begin(result.handover.confirm())

    def _note(self, result: Result) -> None:
        found = result.data["messages"]
        for kind in ("direct", "broadcast"):
            self.run[kind] += [message["text"] for message in found if message["kind"] == kind]
        self.run["lost"].append(result.data["lost"])
        self._had |= {message["id"] for message in found}
        if result.handover is not None:
            self._begin(result.handover.confirm())

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """What may take as long as the trouble lasts."""
        self._beside.append(asyncio.create_task(work))

    async def _all_confirmed(self) -> None:
        """Nothing is wrong any more: what was read is confirmed, or was refused."""
        async with asyncio.timeout(PATIENCE):
            for told in await asyncio.gather(*self._beside, return_exceptions=True):
                assert told is None or isinstance(told, MeshError), told

    # --- what goes wrong ---

    async def _break(self, way: str) -> None:
        if not self.whole or way in self.wrong:
            return
        daemon, log = self.daemon, self.daemon.notify(BROKEN)
        key = f"{daemon.prefix}:to_{BROKEN}"
        if way == WAYS[0] and WAYS[1] not in self.wrong:
            obstruct(log)
        elif way == WAYS[1] and WAYS[0] not in self.wrong:
            log.unlink(missing_ok=True)
            os.symlink(daemon.folder / "gone" / "log", log)
        elif way == WAYS[2]:
            obstruct(daemon.journal(BROKEN))
        elif way == WAYS[3]:
            daemon.hang(BROKEN).begin()
        elif way == WAYS[4]:
            daemon.store.delete(key)
            daemon.store.set(key, "no stream")
        elif way == WAYS[5] and WAYS[4] not in self.wrong:
            daemon.store.xadd(key, {"from": "alice", "msg": b"x" * HUGE, "ts": "1"})
            return
        else:
            return
        self.wrong.add(way)

    async def _junk(self, fields: list[tuple[bytes, bytes]]) -> None:
        if self.whole and WAYS[4] not in self.wrong:
            flat = [part for field in fields for part in field]
            self.daemon.store.execute_command("XADD", f"{self.daemon.prefix}:to_{BROKEN}", "*", *flat)

    async def _cut(self, count: int) -> None:
        for _ in range(count if self.whole else 0):
            known = self.daemon.connections.get(BROKEN)
            if known is not None:
                self.daemon.store.client_kill_filter(_id=known)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    while self.daemon.connections.get(BROKEN) == known:
                        await asyncio.sleep(0.005)

    async def _restart(self, unreadable: bool) -> None:
        self._note_events()
        await self.daemon.stop()
        self.wrong.discard(WAYS[3])
        if self.whole and unreadable:
            await self._break(WAYS[2])
        await self.daemon.start()
        await self._follow_events()
        if self.whole:
            assert (BROKEN in self.daemon.mesh.names.refused) <= (WAYS[2] in self.wrong)

    async def _deregister(self) -> None:
        if self.whole:
            with contextlib.suppress(MeshError):
                await self.daemon.mesh.names.unhost(BROKEN)

    async def _register(self) -> None:
        if self.whole:
            with contextlib.suppress(MeshError):
                await self.daemon.mesh.names.host(BROKEN)

    async def _mend(self) -> None:
        for way in self.wrong:
            if way == WAYS[0]:
                clear(self.daemon.notify(BROKEN))
            elif way == WAYS[1]:
                self.daemon.notify(BROKEN).unlink()
            elif way == WAYS[2]:
                clear(self.daemon.journal(BROKEN))
            elif way == WAYS[3]:
                self.daemon.hang(BROKEN).let_go()
            else:
                self.daemon.store.delete(f"{self.daemon.prefix}:to_{BROKEN}")
        self.wrong.clear()

    async def _is_well_again(self) -> None:
        """All is mended: the broken one receives as ever, and its notify log says so."""
        daemon = self.daemon
        await self._mend()
        await daemon.mesh.names.host(BROKEN)
        agent = daemon.agent(BROKEN)
        await eventually(lambda: agent.health.caught_up, "the broken one receives", PATIENCE)
        last = [next(self._texts), next(self._texts)]
        daemon.send(BROKEN, last[0])
        daemon.broadcast(last[1])
        self._expected.add(last[1])
        await eventually(lambda: set(last) <= set(agent.core.inbox.unread), "the broken one has both", PATIENCE)
        ends = tuple(f"[{text}]" for text in last)
        await eventually(
            lambda: sum(line.endswith(ends) for line in daemon.lines(BROKEN)) == 2, "its notify log has both", PATIENCE
        )
        await eventually(lambda: agent.health.trouble is None, "it is well", PATIENCE)

    # --- what is told ---

    async def _follow_events(self) -> None:
        self._events = self.daemon.mesh.events.subscribe()

    def _note_events(self) -> None:
        """Troubles of hers, and of the daemon itself. An event of before a restart is not lost with it."""
        assert not self._events.lagged
        mesh = self.daemon.mesh
        for event in self._events.queue:
            if event["event"].startswith("store.") or (event["event"] == "agent.trouble" and event["agent"] == GOOD):
                self.run["troubles"].append(event["event"])
        self.run["troubles"] += [*mesh.failing(), *([mesh.group.trouble] if mesh.group.trouble else [])]
        self.run["troubles"] += [stuck for stuck in mesh.stuck() if BROKEN not in stuck]
        self.run["restarts"] += self.daemon.agent(GOOD).health.restarts
        self._events.queue.clear()


async def run_of(history: list[Step], folder: Path, store: Store, *, whole: bool) -> Run:
    async with a_daemon(folder, store, f"t{secrets.token_hex(4)}") as daemon:
        return await History(daemon, whole=whole).go(history)


@pytest.mark.timeout(120 + 60 * ROUNDS)
@settings(
    max_examples=3 * ROUNDS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(history=st.lists(steps, min_size=3, max_size=12))
def test_the_other_one_s_run_is_the_same_as_without(
    history: list[Step],
    mesh_store: Store,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What she is handed, in order, what she is told was lost, her notify log, and what is said to be wrong."""
    monkeypatch.setattr(executor, "END_PATIENCE", 0.2)
    monkeypatch.setattr(arrivals, "_FRESH", 0.2)
    runs = [
        asyncio.run(run_of(history, tmp_path_factory.mktemp("run"), mesh_store, whole=whole)) for whole in (False, True)
    ]
    assert runs[1] == runs[0]
    assert runs[0]["troubles"] == []
