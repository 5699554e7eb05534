"""Broadcasts on their way to one agent: a queue of its own, so that one whose disk takes nothing holds nobody up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from meshd.core.backoff import Backoff
from meshd.core.message import Malformed, Message, entry_key
from meshd.errors import MeshError, StoreBusy, StoreDown, StoreError
from meshd.observing.background import Background
from meshd.receiving.agent import Agent
from meshd.receiving.health import BROADCASTS
from meshd.store.refusals import longest_pause
from meshd.system import clock

log = logging.getLogger("meshd.group")

# Broadcasts that wait for one agent, and bytes of them; one that has more is fed from the store, when it can take them.
QUEUE = 1000
QUEUE_BYTES = 4 << 20

Broadcast = Message | Malformed


class Group(Protocol):
    """The group stream, as a feed sees it. `cursor`: up to where it was read; None before the first look at it."""

    cursor: str | None

    async def fetch(self, since: str, to: str) -> tuple[Sequence[Broadcast], str]:
        """Broadcasts behind `since`, up to `to` at most, and where they end."""
        ...

    async def store_up(self, backoff: Backoff) -> None:
        """Wait until the store answers. The backoff starts over if it did not."""
        ...


class Feed:
    """The broadcasts on their way to one agent. An agent that is behind gets what the store has: one that was admitted,
    or that could not take in what came for too long.

    `at`: up to where in the group stream the agent has everything; None while that is not known.
    """

    def __init__(self, agent: Agent, group: Group, background: Background) -> None:
        self.at = agent.core.inbox.group
        self._agent = agent
        self._group = group
        self._background = background
        self._queue: list[tuple[Sequence[Broadcast], str]] = []
        self._waiting = self._bytes = 0  # in the queue
        self._behind = True
        self._forget = False
        self._taking_in = False
        self._running = False
        self._closed = False

    def put(self, broadcasts: Sequence[Broadcast], cursor: str) -> None:
        """These have come, up to `cursor`. Never waits."""
        if self._behind or self._closed:
            return
        if not broadcasts and not self._queue and not self._taking_in:
            self.at = cursor
            self._agent.changed.send()
            return
        if not broadcasts and self._queue:  # most of the group's traffic is for nobody here
            self._queue[-1] = (self._queue[-1][0], cursor)
            return
        self._waiting += len(broadcasts)
        self._bytes += sum(map(_size, broadcasts))
        if self._waiting > QUEUE or self._bytes > QUEUE_BYTES:
            self._fall_behind()
            return
        self._queue.append((broadcasts, cursor))
        self.go_on()

    def went_back(self) -> None:
        """The stream lost its end: what it still has may be new, and the ids tell what is not."""
        self._forget = True
        self.at = "0-0"
        self._fall_behind()

    def _fall_behind(self) -> None:
        self._queue.clear()
        self._waiting = self._bytes = 0
        self._behind = True
        self.go_on()

    def close(self) -> None:
        """Feed the agent no more. A step that has begun is finished: what is on the disk is applied."""
        self._closed = True

    def go_on(self) -> None:
        """There is something to do. Only then there is a task: most agents wait most of the time."""
        if not self._running and not self._closed:
            self._running = True
            self._background.start(self._run(), f"{self._agent.name}: broadcasts")

    async def _run(self) -> None:
        try:
            await self._work()
        finally:
            self._running = False

    async def _work(self) -> None:
        """Feed the agent until it has all, or is let go: the restart wrapper."""
        backoff, health = Backoff(), self._agent.health
        while (self._behind or self._queue) and not self._closed:
            longest = backoff.cap
            try:
                if not await self._agent.may_receive():
                    self.close()
                    return
                if self.at is None:
                    self.at = self._agent.core.inbox.group or "0-0"
                await self._step(self.at)
            except StoreError as error:
                longest = longest_pause(error)
                if not isinstance(error, StoreDown | StoreBusy):
                    health.say(BROADCASTS, f"broadcasts are not received: {error.message}")
                await self._group.store_up(backoff)
            except MeshError:  # the disk takes nothing, which is said there; or the agent has ended
                if self._agent.gone is not None:
                    self.close()
                    return
            except Exception:
                health.say(BROADCASTS, "its broadcasts could not be taken in and are tried again; see the log")
                log.exception("%s: broadcasts", self._agent.name, extra={"agent": self._agent.name})
                self._fall_behind()
            else:
                health.well(BROADCASTS)
                backoff.reset()
                continue
            await asyncio.sleep(backoff.next(longest))

    async def _step(self, at: str) -> None:
        core = self._agent.core
        if self._forget:
            await self._agent.insist(lambda: core.forget_group(clock.wall()))
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
        waiting, self._queue = self._queue, []
        self._waiting = self._bytes = 0
        await self._take_in([one for broadcasts, _ in waiting for one in broadcasts], waiting[-1][1])

    async def _take_in(self, broadcasts: Sequence[Broadcast], cursor: str) -> None:
        core = self._agent.core
        if broadcasts:
            self._taking_in = True
            try:
                await self._agent.insist(lambda: core.receive_group(broadcasts, cursor, clock.wall()), room=True)
            finally:
                self._taking_in = False
        if not self._forget:
            self.at = cursor
        self._agent.changed.send()

    def has_read(self, newest: str) -> bool:
        """Whether the agent has the newest entry, by its id; empty if there is none."""
        return not newest or self._closed or (self.at is not None and entry_key(self.at) >= entry_key(newest))


def _size(one: Broadcast) -> int:
    """Bytes that are kept for it, about."""
    return len(one.text) if isinstance(one, Message) else sum(map(len, one.fields))
