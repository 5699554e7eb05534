"""Unread mail for whoever reads it, wherever it is: what is needed is brought from the disk, and no more."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from meshd.core import spilling
from meshd.core.inbox import Inbox
from meshd.core.message import Message
from meshd.core.origin import Origin, origin_from, origin_of
from meshd.core.records import Segment
from meshd.errors import Full

if TYPE_CHECKING:
    from meshd.receiving.executor import Executor


class Backlog:
    """One agent's unread mail. All of it raises `Full` if the disk cannot be read, or what the agent ended with."""

    def __init__(self, inbox: Inbox, executor: Executor) -> None:
        self._inbox = inbox
        self._executor = executor

    async def bring(self, limit: int, max_bytes: int, *, direct: bool = False) -> bool:
        """Have so much in memory, that `take` finds it, as far as there is so much; whether that was to be waited for.

        Whoever has waited asks again what else must be sure before mail is handed out, and then for this once more:
        meanwhile it may have gone to the disk again.
        """
        inbox = self._inbox
        if inbox.missing(limit, max_bytes, direct=direct) is None:
            return False
        inbox.unread.wanted += 1
        try:
            while inbox.missing(limit, max_bytes, direct=direct) is not None:
                await self._executor.execute(functools.partial(spilling.bring, inbox, limit, max_bytes, direct=direct))
        finally:
            inbox.unread.wanted -= 1
        return True

    async def peek(self, limit: int, max_bytes: int) -> list[Message]:
        """The oldest, without taking them; what is on the disk stays there."""
        looked: dict[int, list[Message]] = {}
        while (segment := self._inbox.missing(limit, max_bytes, looked=looked)) is not None:
            looked[segment.number] = await self._look(segment)
        return self._inbox.peek(limit, max_bytes, looked)

    async def left_behind(self, private: str, group: str) -> AsyncGenerator[Message]:
        """What the store has no more: from before the first entry that each of the streams has.

        What the disk does not give now stays there, and is said as its trouble.
        """
        for item in list(self._inbox.left_behind(private, group)):
            if not isinstance(item, Segment):
                yield item
                continue
            found: list[Message] = []
            with contextlib.suppress(Full):
                found = await self._look(item)
            for message in found:
                if self._inbox.is_left(message, private, group):
                    yield message

    async def fresh(self, messages: Sequence[Message]) -> list[Message]:
        """Those of them that are not on the disk here already, however long ago they came."""
        known: set[str] = set()
        for segment in self._inbox.unread.covering(messages):
            known.update(one.id for one in await self._look(segment))
        return [message for message in messages if message.id not in known]

    async def origin(self, message_id: str) -> Origin | None:
        """Where a message that was received here came from; None if it is not known."""
        known = self._inbox.origin(message_id)
        if known is None and (message := await self._find(message_id)) is not None:
            return origin_from(origin_of(message))
        return known

    async def _find(self, message_id: str) -> Message | None:
        return await self._executor.undisturbed(functools.partial(self._executor.cold.find, message_id))

    async def _look(self, segment: Segment) -> list[Message]:
        return await self._executor.undisturbed(functools.partial(self._executor.cold.look, segment))
