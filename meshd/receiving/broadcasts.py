"""The group stream: read once for the whole daemon, and fed to every agent through a queue of its own.

One blocked connection a daemon, not one an agent: a thousand clients blocked on one stream stall the store. And a queue
for each agent, because one whose disk takes nothing must not keep broadcasts from the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from meshd.core.backoff import Backoff
from meshd.core.message import Malformed, Message, Ping, decode, entry_key
from meshd.core.names import Keys, is_name
from meshd.errors import MeshError, StoreBusy, StoreDown, StoreError
from meshd.observing.background import Background
from meshd.observing.outage import Outage
from meshd.receiving.agent import Agent
from meshd.receiving.health import BROADCASTS, STALLED
from meshd.receiving.reader import READ_COUNT
from meshd.settings import Settings
from meshd.store.commands import Commands
from meshd.store.endpoint import Endpoint
from meshd.store.link import Link, RawEntries

log = logging.getLogger("meshd.group")

QUEUE = 1000  # broadcasts that wait for one agent; one that has more is fed from the store, when it can take them

Broadcast = Message | Malformed


class _Listener:
    """Sees all traffic behind `since`, whomever it is for; none while it is not known what was the last before it."""

    def __init__(self, hear: Callable[[Message], None]) -> None:
        self.hear = hear
        self.since: str | None = None


class Feed:
    """The broadcasts on their way to one agent. An agent that is behind gets what the store has: one that was admitted,
    or that could not take in what came for too long.

    `at`: up to where in the group stream the agent has everything; None while that is not known.
    """

    def __init__(self, agent: Agent, group: GroupReader) -> None:
        self.at = agent.core.inbox.group
        self._agent = agent
        self._group = group
        self._queue: deque[tuple[Sequence[Broadcast], str]] = deque()
        self._waiting = 0
        self._behind = True
        self._forget = False
        self._taking_in = False
        self._closed = False
        self._wanted = asyncio.Event()
        self._wanted.set()

    def put(self, broadcasts: Sequence[Broadcast], cursor: str) -> None:
        """These have come, up to `cursor`. Never waits."""
        if self._behind:
            return
        if not broadcasts and not self._queue and not self._taking_in:
            self.at = cursor
            self._agent.wake_waiters()
            return
        if self._waiting + len(broadcasts) > QUEUE:
            self._fall_behind()
            return
        self._waiting += len(broadcasts)
        self._queue.append((broadcasts, cursor))
        self._wanted.set()

    def went_back(self) -> None:
        """The stream lost its end: what it still has may be new, and the ids tell what is not."""
        self._forget = True
        self.at = "0-0"
        self._fall_behind()

    def _fall_behind(self) -> None:
        self._queue.clear()
        self._waiting = 0
        self._behind = True
        self._wanted.set()

    def close(self) -> None:
        """Feed the agent no more. A step that has begun is finished: what is on the disk is applied."""
        self._closed = True
        self._wanted.set()

    async def run(self) -> None:
        """Feed the agent until it is let go: the restart wrapper."""
        backoff, health = Backoff(), self._agent.health
        while True:
            await self._wanted.wait()
            if self._closed:
                return
            try:
                if not await self._agent.may_receive():
                    return
                if self.at is None:
                    self.at = self._agent.core.inbox.group or "0-0"
                await self._step(self.at)
            except StoreError as error:
                if not isinstance(error, StoreDown | StoreBusy):
                    health.say(BROADCASTS, f"broadcasts are not received: {error.message}")
                await self._group.store_up()
            except MeshError:
                if self._agent.gone is not None:
                    return
                raise
            except Exception:
                health.say(BROADCASTS, "its broadcasts could not be taken in and are tried again; see the log")
                log.exception("%s: broadcasts", self._agent.name, extra={"agent": self._agent.name})
                self._fall_behind()
            else:
                health.well(BROADCASTS)
                backoff.reset()
                continue
            await asyncio.sleep(backoff.next())

    async def _step(self, at: str) -> None:
        core = self._agent.core
        if self._forget:
            await self._agent.insist(lambda: core.forget_group(time.time()))
            self._forget = False
        if self._behind:
            to = self._group.cursor
            if to is None:  # the reader begins where this agent stands
                self._behind = False
            elif entry_key(at) < entry_key(to):
                await self._take_in(*await self._group.fetch(at, to))
            else:
                self._behind = False  # with nothing awaited since the reader's place was looked at
            return
        if not self._queue:
            self._wanted.clear()
            return
        waiting, self._queue, self._waiting = self._queue, deque(), 0
        await self._take_in([one for broadcasts, _ in waiting for one in broadcasts], waiting[-1][1])

    async def _take_in(self, broadcasts: Sequence[Broadcast], cursor: str) -> None:
        core = self._agent.core
        if broadcasts:
            self._taking_in = True
            try:
                await self._agent.insist(lambda: core.receive_group(broadcasts, cursor, time.time()))
            finally:
                self._taking_in = False
        if not self._forget:
            self.at = cursor
        self._agent.wake_waiters()

    def has_read(self, newest: Sequence[Any]) -> bool:
        """Whether the agent has the newest entry, as XREVRANGE … COUNT 1 gives it."""
        return not newest or (self.at is not None and entry_key(self.at) >= entry_key(newest[0][0].decode()))


class GroupReader:
    """Reads `group` for the agents that were admitted."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        keys: Keys,
        endpoint: Endpoint,
        commands: Commands,
        heard: Callable[[str], None],
    ) -> None:
        self._listeners: set[_Listener] = set()
        self._settings = settings
        self._keys = keys
        self._endpoint = endpoint
        self._commands = commands
        self._heard = heard
        self._feeds: dict[str, Feed] = {}
        self._background = Background(log)
        self.cursor: str | None = None  # up to where the stream was read; None before the first look at it
        self.trouble: str | None = None  # but the store's own, which is said of the store
        self.since = time.time()  # so long it reads, or is in trouble
        self._last_turn = time.monotonic()
        self._outage = Outage(log)

    async def run(self) -> None:
        """Read until cancelled, beginning with what the agents admitted before have not had yet."""
        backoff = Backoff()
        try:
            while True:
                self._last_turn = time.monotonic()
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
        finally:
            await self._background.end()

    def stalled(self, mono: float) -> bool:
        """Whether it should have come round by now, the store being up. `mono` in monotonic seconds."""
        return self.cursor is not None and mono - self._last_turn > STALLED

    async def store_up(self) -> None:
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

    def admit(self, agent: Agent) -> None:
        """Feed an agent: first what it has missed, then all that comes."""
        if agent.name not in self._feeds:
            feed = self._feeds[agent.name] = Feed(agent, self)
            self._background.start(self._feed(agent.name, feed), f"{agent.name}: broadcasts")

    async def _feed(self, name: str, feed: Feed) -> None:
        try:
            await feed.run()
        finally:
            if self._feeds.get(name) is feed:
                del self._feeds[name]

    def dismiss(self, name: str) -> None:
        """Feed this agent no more."""
        if (feed := self._feeds.pop(name, None)) is not None:
            feed.close()

    async def fetch(self, since: str, to: str) -> tuple[Sequence[Broadcast], str]:
        """Broadcasts behind `since`, up to `to` at most, and where they end."""
        reply = await self._commands.call("XRANGE", self._keys.group, f"({since}", to, "COUNT", READ_COUNT)
        end = reply[-1][0].decode() if len(reply) >= READ_COUNT else to
        return self._broadcasts(reply, []), end

    @contextlib.contextmanager
    def overheard(self, hear: Callable[[Message], None]) -> Iterator[None]:
        """While this lasts `hear` is called with what comes into the stream, and never with what was there before.

        The reader's own place would not do: a daemon that starts reads what was there before, for its agents.
        """
        listener = _Listener(hear)
        self._listeners.add(listener)
        asking = self._background.start(self._begin(listener), "the group's last entry")
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
        link = await Link.open(self._endpoint)
        try:
            while True:
                self._last_turn = time.monotonic()
                info, _ = await link.probe(self._keys.group, "$", 1)
                self._say_trouble(None)
                went_back = self.cursor is not None and entry_key(info.last) < entry_key(self.cursor)
                for listener in self._listeners:
                    if went_back or listener.since is None:
                        listener.since = info.last
                if self.cursor is None:
                    self.cursor = min(
                        (feed.at for feed in self._feeds.values() if feed.at), key=entry_key, default=info.last
                    )
                elif went_back:
                    self.cursor = "0-0"
                    for feed in self._feeds.values():
                        feed.went_back()
                while raw := await link.read(self._keys.group, self.cursor, READ_COUNT):
                    self._last_turn = time.monotonic()
                    backoff.reset()
                    self._hand_out(raw)
                    await asyncio.sleep(0)  # many agents are fed from one read: others have their turn
        finally:
            await link.close()

    def _hand_out(self, raw: RawEntries) -> None:
        self.cursor = cursor = raw[-1][0].decode()
        broadcasts = self._broadcasts(raw, self._listeners)
        for feed in self._feeds.values():
            feed.put(broadcasts, cursor)

    def _hear_of(self, fields: list[bytes]) -> None:
        """Note who sent a copy: 0.1 programs are in no index, and are found by their traffic."""
        if fields[0] == b"from" and is_name(name := fields[1].decode("ascii", "replace")):
            self._heard(name)

    def has_read(self, agent: Agent, newest: Sequence[Any]) -> bool:
        """Whether the agent has had the newest entry, as XREVRANGE … COUNT 1 gives it."""
        feed = self._feeds.get(agent.name)
        return feed is None or feed.has_read(newest)

    def _broadcasts(self, raw: RawEntries, listeners: Collection[_Listener]) -> list[Broadcast]:
        """The broadcasts among the entries, and what should have been one; the listeners are told of all."""
        limit = self._settings().max_message
        found: list[Broadcast] = []
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
