"""One agent's unread mail on the disk: the executor's part that writes segments, reads and removes them."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from meshd.core import spilling
from meshd.core.agent import AgentCore
from meshd.core.effects import Commit, Drop, Effect, Load, Spill
from meshd.core.message import Message
from meshd.core.records import Record, Segment, Spilled
from meshd.disk.files import refusal
from meshd.disk.journal import Journal
from meshd.disk.segments import Segments
from meshd.errors import Full
from meshd.receiving.health import SEGMENTS, Health
from meshd.system.clock import wall

T = TypeVar("T")

log = logging.getLogger("meshd.agent")


class InThread(Protocol):
    """Runs a blocking job in a thread."""

    def __call__(self, job: Callable[[], T]) -> Awaitable[T]: ...


class ColdMail:
    """All but `recover` is for the executor's steps: nothing else may be carried out meanwhile. Raises `Full`."""

    def __init__(
        self,
        core: AgentCore,
        journal: Journal,
        health: Health,
        in_thread: InThread,
        commit: Callable[[Sequence[Record]], Awaitable[None]],
    ) -> None:
        self._core = core
        self._journal = journal
        self._health = health
        self._segments = Segments(journal.path)
        self._in_thread = in_thread
        self._commit = commit

    def recover(self, *, damaged: bool) -> None:
        """Remove files that no record tells of, as a crash leaves them; take in what a damaged journal told of.

        Blocks; raises `OSError`.
        """
        known = self._core.inbox.unread.segments
        for number in [number for number in self._segments.numbers() if number not in known]:
            found = self._segments.read(number) if damaged else []
            if unread := [message for message in found if not self._core.inbox.is_read(message.id)]:
                record = Spilled(segment=spilling.segment_of(number, unread))
                self._journal.append([record])
                self._core.apply(record)
            else:
                self._segments.drop([number])

    def is_due(self) -> bool:
        """Whether mail is to go to the disk."""
        due = self._core.inbox.surplus() is not None
        if not due:
            self._health.well(SEGMENTS)  # there is nothing to write; and who cannot read is told that himself
        return due

    async def carry(self, effect: Spill | Load | Drop) -> None:
        """Mail goes to the disk, or comes back, and files that are not needed are removed."""
        match effect:
            case Spill(segment, messages):
                await self._on_disk(functools.partial(self._segments.write, segment.number, messages), "write")
            case Load(segment):
                await self._load(segment)
            case Drop(numbers, damaged):
                away = self._segments.put_aside if damaged else self._segments.drop
                with contextlib.suppress(Full):  # they are removed at the next start
                    await self._on_disk(functools.partial(away, numbers), "write")

    async def _load(self, segment: Segment) -> None:
        found, name = await self._read(segment), self._core.name
        if missing := segment.count - len(found):
            path = self._segments.path(segment.number)
            log.error("%s: %d unread messages are gone from %s", name, missing, path, extra={"agent": name})
        effects: Sequence[Effect] = spilling.loaded(self._core.inbox, segment, found, name, wall())
        for effect in effects:
            if isinstance(effect, Commit):
                await self._commit(effect.records)
            elif isinstance(effect, Drop):
                await self.carry(effect)

    async def _read(self, segment: Segment) -> list[Message]:
        return await self._on_disk(functools.partial(self._segments.read, segment.number), "read")

    async def look(self, segment: Segment) -> list[Message]:
        """What a segment has that is unread still; of one that has not become one, what is in memory."""
        unread = self._core.inbox.unread
        if segment.number not in unread.segments:
            return [unread[message_id] for message_id in segment.ids if message_id in unread]
        return [message for message in await self._read(segment) if not self._core.inbox.is_read(message.id)]

    async def find(self, message_id: str) -> Message | None:
        """A message that is on the disk, by its id."""
        numbers = list(self._core.inbox.unread.segments)
        if not numbers:
            return None
        return await self._on_disk(functools.partial(self._segments.find, numbers, message_id), "read")

    async def _on_disk(self, job: Callable[[], T], doing: str) -> T:
        """As the executor's; but the trouble is another one than the journal's."""
        try:
            result = await self._in_thread(job)
        except OSError as error:
            full = refusal(error, self._journal.path, doing)
            self._health.say(SEGMENTS, full.message)
            raise full from None
        self._health.well(SEGMENTS)
        return result
