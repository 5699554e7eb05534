"""Something that happens again and again, for all who wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Signal:
    """Sets an event for each of those who wait."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        self._events: list[asyncio.Event] = []

    @contextlib.contextmanager
    def awaited(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever it happens; whoever waits clears it."""
        event = asyncio.Event()
        self._events.append(event)
        try:
            yield event
        finally:
            self._events.remove(event)

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._events)

    def send(self) -> None:
        for event in self._events:
            event.set()
