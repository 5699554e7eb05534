"""Who is there: the names of the mesh, ours and everybody's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from operator import attrgetter

from meshd.core.backoff import Backoff
from meshd.core.names import Keys
from meshd.errors import StoreError
from meshd.hosting.entries import Entries, Gone, Shown, here
from meshd.receiving.agent import Agent
from meshd.store import replies
from meshd.store.commands import Commands
from meshd.store.scripts.who import who

HOUSEKEEPING = 45.0  # seconds
REMEMBERED = 7 * 86400  # seconds that `who --all` shows a name that is gone
_HEARD = 1000
_NUMBERS = 1e15
# Of a smaller store all is seen at once; a larger one takes a few looks, and costs no more each.
_SCAN_STEPS, _SCAN_COUNT = 10, 1000


class Directory:
    """Registry entries, and names of 0.1 programs, which are in no index. `agents`: those that are hosted here."""

    def __init__(self, keys: Keys, commands: Commands, agents: Mapping[str, Agent]) -> None:
        self._keys = keys
        self._agents = agents
        self._commands = commands
        self._heard: dict[str, None] = {}
        self._scan_cursor = 0
        self._entries = Entries()
        self._known: list[str] = []  # the names of the last answer: most of them are those of the next

    def heard(self, name: str) -> None:
        """A name was seen in traffic: 0.1 programs have no place in the presence index."""
        if name not in self._heard:
            self._heard[name] = None
            if len(self._heard) > _HEARD:
                del self._heard[next(iter(self._heard))]

    async def who(self, *, everyone: bool = False) -> list[Shown | Gone]:
        """Live agents by name, ours as they are now; with `everyone` also names that are gone.

        Costs one round trip, in which an index range, the entries of the names of the last time and a bounded piece of
        a scan for 0.1 programs are asked for, and another one for names that are new.
        """
        now = self._commands.store_time()
        floor = now - REMEMBERED if everyone else now
        # What the store says of ours is what we have written there, some time ago.
        ours = {name: agent for name, agent in self._agents.items() if agent.lease.ours}
        asked = list({*self._known, *self._heard, *self._agents}.difference(ours))
        present, _ = await asyncio.gather(
            self._commands.script(who(self._keys, floor=floor, names=asked)), self._scan(steps=1)
        )
        expires = {name: score for name, score in present.expires.items() if score < _NUMBERS}
        entries = dict(zip(asked, present.entries, strict=True))
        # Ours are there however many names strangers write into the index, of which a bounded number is looked at.
        names = {*expires, *self._heard, *self._agents}.difference(ours)
        if new := [name for name in names if name not in entries]:
            present = await self._commands.script(who(self._keys, floor=floor, names=new))
            entries.update(zip(new, present.entries, strict=True))
        self._known = list(expires)
        there = ((name, entries[name]) for name in names if entries[name])
        found: list[Shown | Gone] = [*self._entries.shown(there, now)]
        for name in names:
            if entries[name]:
                continue
            if name not in expires:
                self._heard.pop(name, None)
            elif everyone:
                found.append(Gone(agent=name, gone_for=round(max(0.0, now - expires[name]), 1)))
        now = self._commands.store_time()
        found += here((agent for agent in ours.values() if agent.lease.ours and not agent.hosted.stealth), now)
        return sorted(found, key=attrgetter("agent"))

    async def _scan(self, steps: int = _SCAN_STEPS) -> None:
        """Look for registry keys that are in no index: a bounded piece of the store, and on from there next time."""
        for _ in range(steps):
            try:
                self._scan_cursor, found = await self._commands.call(
                    *("SCAN", self._scan_cursor, "MATCH", self._keys.registry_pattern, "COUNT", _SCAN_COUNT),
                    read=replies.scanned,
                )
            except StoreError as error:
                if error.retryable:
                    raise
                return  # an access list may forbid it; the index is enough for our own agents
            for key in found:
                if name := self._keys.registered_name(key):
                    self.heard(name)
            if self._scan_cursor == 0:
                return

    async def keep(self) -> None:
        """Drop names from the index that have been gone for long, and look for 0.1's, from time to time."""
        backoff = Backoff()
        while True:
            await self._commands.up.wait()
            try:
                await self._scan()
                oldest = f"{self._commands.store_time() - REMEMBERED:.3f}"
                await self._commands.call("ZREMRANGEBYSCORE", self._keys.presence, "-inf", oldest)
            except StoreError:
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            await asyncio.sleep(HOUSEKEEPING)
