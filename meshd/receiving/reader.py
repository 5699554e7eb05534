"""Reads one agent's private stream, and has taken in what comes, until the name is held elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING

from meshd.core.backoff import Backoff
from meshd.core.effects import CheckLease
from meshd.core.message import Malformed, decode, entry_key
from meshd.errors import MeshError, StoreBusy, StoreDown, StoreError
from meshd.receiving.health import READER, STORE
from meshd.store.bounds import Budget, TooLarge
from meshd.store.link import Link
from meshd.store.pulse import BLOCK
from meshd.store.refusals import longest_pause
from meshd.system import clock

if TYPE_CHECKING:
    from meshd.receiving.agent import Agent, Shared

READ_COUNT = 500
# Seconds after which a stream that brings nothing is looked at: one that went back brings nothing behind the cursor.
LOOK_AGAIN = 14.0
_STALL = BLOCK + 1  # seconds of one turn after which entries may have been missed


class Reader:
    """The private stream of one agent: a connection of its own, blocked on it."""

    def __init__(self, agent: Agent, shared: Shared) -> None:
        self._agent = agent
        self._shared = shared
        self._health = agent.health
        self._budget = Budget(READ_COUNT)
        self._backoff = Backoff()
        self._reads_since: float | None = None  # monotonic; None before the first answer on this connection

    async def run(self) -> None:
        """Receive until cancelled, or until the name is held elsewhere: the one restart wrapper.

        A fault here harms no other agent.
        """
        agent, commands = self._agent, self._shared.commands
        while True:
            self._health.turned()
            longest = self._backoff.cap
            try:
                if not await agent.may_receive():
                    return
                agent.reminders.resend()
                await self._receive()
                return
            except StoreError as error:
                longest = longest_pause(error)
                source = STORE if isinstance(error, StoreDown | StoreBusy) else READER
                self._health.say(source, error.message)
                commands.check_now()
                await commands.back_up(self._backoff)
            except MeshError:  # the disk takes nothing, which is said there; or the agent has ended
                if agent.gone is not None:
                    return
            except Exception:
                self._health.restarts += 1
                self._health.say(READER, "its reader failed and is started again; see the log", exc_info=True)
            await asyncio.sleep(self._backoff.next(longest))

    async def _receive(self) -> None:
        stream = self._shared.keys.inbox(self._agent.name)
        while True:
            link = await Link.open(self._shared.endpoint)
            self._reads_since = None
            try:
                return await self._follow(link, stream)
            except TooLarge:
                await self._around(stream)
            finally:
                if self._reads_since is not None:
                    self._backoff.stood(clock.mono() - self._reads_since)
                self._health.set_caught_up(False)
                await link.close()

    async def _follow(self, link: Link, stream: str) -> None:
        agent, shared, core, budget = self._agent, self._shared, self._agent.core, self._budget
        probe, time = True, asyncio.get_running_loop().time
        while True:
            cursor, count = core.inbox.position.at, budget.count
            self._health.turned()
            if probe:
                asked = time()
                info, raw = await link.probe(stream, cursor, budget)
            else:
                info, raw = None, await link.read(stream, cursor, budget, lasts=LOOK_AGAIN)
                asked = link.asked
            if not agent.holds_lease:
                # What was read may be another daemon's by now; and if not, it begins where that one stopped.
                if not await agent.may_receive():
                    return
                probe = True
                continue
            if not raw and info is None:
                # Of a stream that went back, the counts are others than they were.
                probe = time() - asked > _STALL or not core.inbox.has_all(await link.counts(stream))
                continue
            full = len(raw) >= count
            if full and info is None:
                # So many at once may have pushed others out, and that can be counted only before these are
                # taken in: read them again, with the counts.
                probe = True
                continue
            limit = shared.settings().max_message
            entries = [decode(at, fields, shared.keys, limit) for at, fields in raw]
            last = raw[-1][0].decode() if raw else cursor
            went_back = info is not None and core.inbox.went_back(info)
            effects = await agent.insist(
                functools.partial(core.receive, entries, last, clock.wall(), info, shared.commands.store_time()),
                room=True,
            )
            self._health.well(READER, STORE)
            if self._reads_since is None:
                self._reads_since = clock.mono()
            if raw:  # a connection that has brought something was worth its price, however soon it ends
                self._backoff.reset()
            if went_back:
                agent.lease.lost()  # and with the stream's end perhaps the lease: it is asked for before the rest
            moved = next((effect for effect in effects if isinstance(effect, CheckLease)), None)
            if moved is not None and not await agent.heard_of_move(moved.ping):
                return
            more = full or went_back or moved is not None
            if info is not None and not more:
                self._health.set_caught_up(True)
            # Counting is needed where entries may have been missed: after a stall, a full batch.
            probe = more or time() - asked > _STALL

    async def _around(self, stream: str) -> None:
        """What comes next is more than can be read at once: find out how much may be.

        Entries that are too large by themselves are written down as such, and removed: nobody could read them.
        """
        agent, core = self._agent, self._agent.core
        link = await Link.open(self._shared.endpoint)
        try:
            while True:
                found = await link.sizes(stream, core.inbox.position.at, READ_COUNT)
                if self._budget.known([entry.bytes for entry in found]):
                    return
                entry = Malformed(found[0].id, f"{found[0].bytes} bytes, too large to be read", ())
                await agent.insist(functools.partial(core.receive, [entry], entry.at, clock.wall()))
                # Each look at the stream's counts would have the store get it ready again, which stops everybody.
                with contextlib.suppress(StoreError):
                    await link.call("XDEL", stream, entry.at)
        finally:
            await link.close()

    def has_read(self, newest: str) -> bool:
        """Whether the cursor has passed the newest entry, by its id; empty if there is none."""
        return not newest or entry_key(self._agent.core.inbox.position.at) >= entry_key(newest)
