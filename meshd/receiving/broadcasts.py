"""The group stream: read once for the whole daemon, and fed to every agent through a queue of its own.

Our daemons put each broadcast on a stream of broadcasts alone, too, under the same entry id: talk between others pushes
it out of the group sooner. Whoever comes back reads both.

One blocked connection a daemon, not one an agent: a thousand clients blocked on one stream stall the store. And a queue
for each agent, because one whose disk takes nothing must not keep broadcasts from the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence

from meshd.core.backoff import Backoff
from meshd.core.message import Message, Ping, decode, entry_key
from meshd.core.names import Keys, is_name
from meshd.errors import StoreBusy, StoreDown, StoreError
from meshd.observing.background import Background
from meshd.observing.outage import Outage
from meshd.receiving.agent import Agent
from meshd.receiving.feed import Broadcast, Feed
from meshd.receiving.health import STALLED
from meshd.receiving.reader import LOOK_AGAIN, READ_COUNT
from meshd.settings import Settings
from meshd.store.bounds import Budget, TooLarge
from meshd.store.commands import Commands
from meshd.store.endpoint import Endpoint
from meshd.store.link import Link
from meshd.store.pulse import BLOCK
from meshd.store.refusals import longest_pause
from meshd.store.replies import RawEntries
from meshd.store.scripts.leases import counts
from meshd.system import clock

log = logging.getLogger("meshd.group")


class _Listener:
    """Sees all traffic behind `since`, whomever it is for; none while it is not known what was the last before it."""

    def __init__(self, hear: Callable[[Message], None]) -> None:
        self.hear = hear
        self.since: str | None = None


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
        self._budget = Budget(READ_COUNT)
        self.cursor: str | None = None  # up to where the stream was read; None before the first look at it
        self.trouble: str | None = None  # but the store's own, which is said of the store
        self.since = clock.wall()  # so long it reads, or is in trouble
        self._last_turn = clock.mono()
        self._outage = Outage(log)

    async def run(self) -> None:
        """Read until cancelled, beginning with what the agents admitted before have not had yet."""
        backoff = Backoff()
        try:
            while True:
                self._last_turn = clock.mono()
                longest = backoff.cap
                try:
                    await self._follow(backoff)
                except StoreError as error:
                    longest = longest_pause(error)
                    if not isinstance(error, StoreDown | StoreBusy):
                        self._say_trouble(error.message)
                    self._commands.check_now()
                except Exception:
                    self._say_trouble("the group's reader failed and is started again; see the log", exc_info=True)
                await self._commands.back_up(backoff)
                await asyncio.sleep(backoff.next(longest))
        finally:
            await self._background.end()

    def stalled(self, mono: float) -> bool:
        """Whether it should have come round by now, the store being up. `mono` in monotonic seconds."""
        return self.cursor is not None and mono - self._last_turn > STALLED

    async def store_up(self, backoff: Backoff) -> None:
        await self._commands.back_up(backoff)

    def _say_trouble(self, text: str | None, *, exc_info: bool = False) -> None:
        """This keeps broadcasts from everybody; None: nothing does any more."""
        if (text is None) != (self.trouble is None):
            self.since = clock.wall()
        self.trouble = text
        if text is not None:
            self._outage.begin(f"broadcasts are not received: {text}", exc_info=exc_info)
        else:
            self._outage.end("broadcasts are received again")

    def admit(self, agent: Agent) -> None:
        """Feed an agent: first what it has missed, then all that comes."""
        if agent.name not in self._feeds:
            feed = self._feeds[agent.name] = Feed(agent, self, self._background)
            feed.go_on()

    def dismiss(self, name: str) -> None:
        """Feed this agent no more."""
        if (feed := self._feeds.pop(name, None)) is not None:
            feed.close()

    async def fetch(self, since: str, to: str) -> tuple[Sequence[Broadcast], str]:
        """Broadcasts behind `since`, up to `to` at most, and where they end."""
        link = await Link.open(self._endpoint)
        try:
            raw = await self._both(link, since)
        finally:
            await link.close()
        before = [entry for entry in raw if entry_key(entry[0].decode()) <= entry_key(to)]
        return self._broadcasts(before, []), before[-1][0].decode() if raw and len(before) == len(raw) else to

    async def _both(self, link: Link, cursor: str) -> RawEntries:
        """What stands behind the cursor in either of the streams, in order, as far as both are known. Waits for none.

        Of a broadcast that stands in both, one entry.
        """
        found: dict[bytes, list[bytes] | None] = {}
        known: list[tuple[int, int]] = []  # where those end of which there may be more
        for stream in (self._keys.broadcasts, self._keys.group):
            count = self._budget.count
            raw = await self._read(link, cursor, stream, block=0.001)
            found |= dict(raw)
            if len(raw) >= count or any(fields is None for _, fields in raw):
                known.append(entry_key(raw[-1][0].decode()))
        entries = sorted(found.items(), key=lambda entry: entry_key(entry[0].decode()))
        return [entry for entry in entries if not known or entry_key(entry[0].decode()) <= min(known)]

    async def _read(
        self, link: Link, cursor: str, stream: str = "", *, block: float = BLOCK, lasts: float = 0.0
    ) -> RawEntries:
        """What stands behind the cursor. An entry that is too large to be read is given without its fields."""
        stream = stream or self._keys.group
        try:
            return await link.read(stream, cursor, self._budget, block=block, lasts=lasts)
        except TooLarge:
            asking = await Link.open(self._endpoint)
            try:
                found = await asking.sizes(stream, cursor, READ_COUNT)
            finally:
                await asking.close()
            if self._budget.known([entry.bytes for entry in found]):
                raise
            log.error("an entry of the group is passed by: %d bytes, too large to be read", found[0].bytes)
            return [(found[0].id.encode(), None)]

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
            found = await self._commands.script(counts(self._keys.group))
            listener.since = found.info.last

    async def _follow(self, backoff: Backoff) -> None:
        link = await Link.open(self._endpoint, first=True)
        reads_since: float | None = None
        try:
            while True:
                self._last_turn = clock.mono()
                info, _ = await link.probe(self._keys.group, "$", 1)
                reads_since = reads_since or clock.mono()
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
                await self._take_in(link, backoff)
        finally:
            if reads_since is not None:
                backoff.stood(clock.mono() - reads_since)
            await link.close()

    async def _take_in(self, link: Link, backoff: Backoff) -> None:
        """Hand out what there is, then what comes, until none has come for as long as is waited."""
        assert self.cursor is not None
        behind = True
        while True:
            count = self._budget.count
            if behind:
                raw = await self._both(link, self.cursor)
                behind = bool(raw)
                if not behind:
                    continue
            else:
                raw = await self._read(link, self.cursor, lasts=LOOK_AGAIN)
                if not raw:
                    return
                behind = len(raw) >= count
                if behind:
                    continue  # so many at once may have pushed others out: read again, with the other stream
            self._last_turn = clock.mono()
            backoff.reset()
            self._hand_out(raw)
            await asyncio.sleep(0)  # many agents are fed from one read: others have their turn

    def _hand_out(self, raw: RawEntries) -> None:
        self.cursor = cursor = raw[-1][0].decode()
        broadcasts = self._broadcasts(raw, self._listeners)
        for feed in self._feeds.values():
            feed.put(broadcasts, cursor)

    def _hear_of(self, fields: list[bytes]) -> None:
        """Note who sent a copy: 0.1 programs are in no index, and are found by their traffic."""
        if fields[0] == b"from" and is_name(name := fields[1].decode("ascii", "replace")):
            self._heard(name)

    def has_read(self, agent: Agent, newest: str) -> bool:
        """Whether the agent has had the newest entry, by its id; empty if there is none."""
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
