"""The group stream: read once for the whole daemon, handed to every agent.

One blocked connection a daemon, not one an agent: a thousand clients blocked on one stream stall the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from meshd.core.backoff import Backoff
from meshd.core.message import Malformed, Message, Ping, decode, entry_key
from meshd.core.names import Keys, is_name
from meshd.errors import StoreBusy, StoreDown, StoreError
from meshd.observing.outage import Outage
from meshd.receiving.agent import READ_COUNT, Agent
from meshd.settings import Settings
from meshd.store.commands import Commands
from meshd.store.endpoint import Endpoint
from meshd.store.link import Link
from meshd.store.replies import RawEntries

log = logging.getLogger("meshd.group")


class _Listener:
    """Sees all traffic behind `since`, whomever it is for; none while it is not known what was the last before it."""

    def __init__(self, hear: Callable[[Message], None]) -> None:
        self.hear = hear
        self.since: str | None = None


class GroupReader:
    """Reads `group` for the agents that were admitted. `lost(agent)` is told of one whose lease may have run out."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        keys: Keys,
        endpoint: Endpoint,
        commands: Commands,
        heard: Callable[[str], None],
        lost: Callable[[Agent], None],
    ) -> None:
        self._listeners: set[_Listener] = set()
        self._settings = settings
        self._keys = keys
        self._endpoint = endpoint
        self._commands = commands
        self._heard = heard
        self._lost = lost
        self._agents: dict[str, Agent] = {}
        self._cursor: str | None = None
        self.trouble: str | None = None  # but the store's own, which is said of the store
        self.since = time.time()  # so long it reads, or is in trouble
        self._outage = Outage(log)

    async def run(self) -> None:
        """Read until cancelled, beginning with what the agents admitted before have not had yet."""
        backoff = Backoff()
        while True:
            try:
                await self._follow(backoff)
            except StoreError as error:
                if not isinstance(error, StoreDown | StoreBusy):
                    self._say_trouble(error.message)
                self._commands.check_now()
            except Exception:
                self._say_trouble("the group's reader failed and is started again; see the log", exc_info=True)
            await asyncio.sleep(backoff.next())
            await self._commands.up.wait()

    def _say_trouble(self, text: str | None, *, exc_info: bool = False) -> None:
        """This keeps broadcasts from everybody; None: nothing does any more."""
        if (text is None) != (self.trouble is None):
            self.since = time.time()
        self.trouble = text
        if text is not None:
            self._outage.begin(f"broadcasts are not received: {text}", exc_info=exc_info)
        else:
            self._outage.end("broadcasts are received again")

    async def admit(self, agent: Agent) -> None:
        """Add an agent: first what it has missed up to where the reader stands, then all that comes."""
        while self._cursor is not None and agent.name not in self._agents:
            cursor, since = self._cursor, agent.core.inbox.group or self._cursor
            if entry_key(since) < entry_key(cursor):
                reply = await self._commands.call("XRANGE", self._keys.group, f"({since}", cursor)
                await agent.receive_group(self._broadcasts(reply, []), cursor)
            if self._cursor == cursor:
                break
        self._agents[agent.name] = agent

    def dismiss(self, name: str) -> None:
        self._agents.pop(name, None)

    @contextlib.contextmanager
    def overheard(self, hear: Callable[[Message], None]) -> Iterator[None]:
        """While this lasts `hear` is called with what comes into the stream, and never with what was there before.

        The reader's own place would not do: a daemon that starts reads what was there before, for its agents.
        """
        listener = _Listener(hear)
        self._listeners.add(listener)
        asking = asyncio.create_task(self._begin(listener), name="the group's last entry")
        try:
            yield
        finally:
            self._listeners.discard(listener)
            asking.cancel()

    async def _begin(self, listener: _Listener) -> None:
        with contextlib.suppress(StoreError):  # then the reader finds it out when it is back
            newest = await self._commands.call("XREVRANGE", self._keys.group, "+", "-", "COUNT", 1)
            listener.since = newest[0][0].decode() if newest else "0-0"

    async def _follow(self, backoff: Backoff) -> None:
        link = await Link.open(self._endpoint, first=True)
        try:
            while True:
                info, _ = await link.probe(self._keys.group, "$", 1)
                self._say_trouble(None)
                went_back = self._cursor is not None and entry_key(info.last) < entry_key(self._cursor)
                for listener in self._listeners:
                    if went_back or listener.since is None:
                        listener.since = info.last
                if self._cursor is None:
                    cursors = [agent.core.inbox.group for agent in self._agents.values()]
                    self._cursor = min((c for c in cursors if c is not None), key=entry_key, default=info.last)
                elif went_back:
                    self._cursor = "0-0"
                    await asyncio.gather(*(agent.forget_group() for agent in list(self._agents.values())))
                while raw := await link.read(self._keys.group, self._cursor, READ_COUNT):
                    backoff.reset()
                    await self._hand_out(raw)
        finally:
            await link.close()

    async def _hand_out(self, raw: RawEntries) -> None:
        cursor = raw[-1][0].decode()
        broadcasts = self._broadcasts(raw, self._listeners)
        for agent in [agent for agent in self._agents.values() if not agent.held]:
            self.dismiss(agent.name)  # once its lease is known it is admitted again, with what it has missed
            self._lost(agent)
        if broadcasts:
            await asyncio.gather(*(agent.receive_group(broadcasts, cursor) for agent in list(self._agents.values())))
        self._cursor = cursor
        for agent in self._agents.values():
            agent.wake_waiters()

    def _hear_of(self, fields: list[bytes]) -> None:
        """Note who sent a copy: 0.1 programs are in no index, and are found by their traffic."""
        if fields[0] == b"from" and is_name(name := fields[1].decode("ascii", "replace")):
            self._heard(name)

    def has_read(self, newest: Sequence[Any]) -> bool:
        """Whether the reader has passed the newest entry, as XREVRANGE … COUNT 1 gives it."""
        return not newest or self._cursor is None or entry_key(self._cursor) >= entry_key(newest[0][0].decode())

    def _broadcasts(self, raw: RawEntries, listeners: Collection[_Listener]) -> list[Message | Malformed]:
        """The broadcasts among the entries, and what should have been one; the listeners are told of all."""
        limit = self._settings().max_message
        found: list[Message | Malformed] = []
        for at, fields in raw:
            # Most of the group's traffic is copies of private messages: not decoded unless somebody listens.
            if fields is None:
                continue
            everyone = b"*" in fields
            if not everyone and not listeners:
                self._hear_of(fields)
                continue
            entry = decode(at, fields, self._keys, limit)
            if isinstance(entry, Message):
                self._heard(entry.sender)
                for listener in listeners:
                    if listener.since is not None and entry_key(entry.at) > entry_key(listener.since):
                        listener.hear(entry)
                everyone = entry.kind == "broadcast"
            if everyone and not isinstance(entry, Ping):
                found.append(entry)
        return found
