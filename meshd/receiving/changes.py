"""What changed of this daemon's agents that the store is still to be told: taken from here by who tells it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshd.receiving.agent import Agent


class Changes:
    """Agents by what of them changed. `wanted` is set when there is something to tell."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self._read: dict[str, Agent] = {}
        self._shown: dict[str, Agent] = {}

    def read(self, agent: Agent) -> None:
        """How far it was read."""
        self._read[agent.name] = agent
        self.wanted.set()

    def shown(self, agent: Agent) -> None:
        """What others see of it: its registry entry."""
        self._shown[agent.name] = agent
        self.wanted.set()

    @property
    def any_shown(self) -> bool:
        return bool(self._shown)

    def take_read(self) -> list[Agent]:
        taken, self._read = self._read, {}
        return list(taken.values())

    def take_shown(self) -> list[Agent]:
        taken, self._shown = self._shown, {}
        return list(taken.values())
