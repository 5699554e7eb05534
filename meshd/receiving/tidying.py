"""What is done between an executor's steps: mail goes to the disk, and the journal is written anew."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Protocol

from meshd.core import spilling
from meshd.core.agent import AgentCore
from meshd.core.backoff import Backoff
from meshd.core.effects import Effect
from meshd.disk.journal import Journal
from meshd.errors import Full, MeshError
from meshd.observing.background import Background
from meshd.receiving.cold_mail import ColdMail


class Execute(Protocol):
    """One step of the executor."""

    def __call__(
        self, decide: Callable[[], list[Effect]], ended: Callable[[bool], None] | None = None
    ) -> Awaitable[list[Effect]]: ...


class Tidying:
    """One agent's. `compact()` writes the journal anew, if that is due, while no step is carried out."""

    def __init__(
        self,
        core: AgentCore,
        journal: Journal,
        cold: ColdMail,
        execute: Execute,
        compact: Callable[[], Awaitable[None]],
        background: Background,
    ) -> None:
        self._core = core
        self._journal = journal
        self._cold = cold
        self._execute, self._compact = execute, compact
        self._background = background
        self._runs = False

    def compaction_due(self) -> bool:
        return self._journal.compaction_due(self._core.inbox.unread.journaled)

    def if_due(self) -> None:
        """Begin with what is to be done, if there is anything."""
        if not self._runs and (self._cold.is_due() or self.compaction_due()):
            self._runs = True
            self._background.start(self._run(), f"{self._core.name}: tidying")

    async def _run(self) -> None:
        """Put on the disk what is too much in memory, and write the journal anew if half of it is of no use.

        A failure is said and no more: the records are on the disk, the mail stays in memory, and the journal grows.
        """
        try:
            with contextlib.suppress(Full):
                while await self._spill():
                    pass
            await self._compact()
        except MeshError:
            pass
        finally:
            self._runs = False

    async def _spill(self) -> list[Effect]:
        """One chunk of what is too much in memory goes to the disk; nothing when there is none. Raises as a step."""
        inbox = self._core.inbox
        return await self._execute(functools.partial(spilling.spill, inbox), lambda _: spilling.stays(inbox))

    async def make_room(self, pause: Callable[[float], Awaitable[None]]) -> None:
        """More mail may come than the disk takes in the same time: before even more is taken in, it goes there.

        Raises as a step does.
        """
        backoff = Backoff(base=0.02, cap=0.5)
        while self._core.inbox.unread.is_crowded():
            if not await self._spill():
                # None can go while somebody brings mail into memory, or has it in hand.
                await pause(backoff.next())
