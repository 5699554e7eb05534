"""Mail on its way to whoever reads it: read when that was confirmed, unread again when it failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from meshd.core.message import Message

if TYPE_CHECKING:
    from meshd.receiving.agent import Agent


class Delivery(Protocol):
    """Something on its way to whoever asked for it. `awaited`: somebody waits to hear of the confirmation, and no
    longer than for a moment.
    """

    awaited: bool
    messages: Sequence[Message]

    async def confirm(self) -> None:
        """It has arrived."""
        ...

    def release(self) -> None:
        """It has not."""
        ...


class Handover:
    """Messages, and a number of losses, that are being handed to somebody."""

    awaited = False

    def __init__(self, agent: Agent, messages: Sequence[Message], lost: int = 0) -> None:
        self.messages: Sequence[Message] = messages
        self._agent = agent
        self._lost = lost
        self._ids = [message.id for message in messages]
        self._open = True
        agent.handovers.append(self)

    async def confirm(self) -> None:
        """Write down that they were read. Raises `Full`, or `NotAllowed` if the name has moved; then they were not."""
        if not self._open:
            return
        self._open = False
        agent = self._agent
        try:
            # The name may be another daemon's by now, which hands out the same: then this was no read.
            await agent.ensure_confirmable()
        except BaseException:
            self._ended(read=False)
            raise
        # Whoever confirms may leave before the disk has answered: only then it is known what became of it.
        await agent.execute(
            lambda: agent.core.mark_read(self._ids, self._lost), lambda written: self._ended(read=written)
        )

    def release(self) -> None:
        """They did not reach the reader."""
        if self._open:
            self._open = False
            self._ended(read=False)

    def _ended(self, *, read: bool) -> None:
        agent = self._agent
        if not read:
            agent.core.inbox.release(self._ids, self._lost)
        agent.handed_back(self)
        if not read:
            agent.changed.send()
