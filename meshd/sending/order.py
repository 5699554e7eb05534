"""Turns: what keeps the sends of one sender to one target in order while some of them have to wait.

Sends that go out at once need no turn: the connection keeps their order. One that waits, for the disk or for a
store that is down, closes its lane: those behind it wait until it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

Key = tuple[str, str]


class Place:
    """A send's place in its lane."""

    __slots__ = ("_lane",)

    def __init__(self, lane: _Lane) -> None:
        self._lane = lane

    @property
    def is_open(self) -> bool:
        """Whether nobody waits in the lane: the send may go out at once, behind those that did."""
        return not self._lane.waiting

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until everything before has ended; until this block ends, everything behind waits."""
        lane = self._lane
        lane.waiting += 1
        try:
            while lane.places[0] is not self:
                lane.moved.clear()
                await lane.moved.wait()
            yield
        finally:
            lane.waiting -= 1


class _Lane:
    __slots__ = ("moved", "places", "waiting")

    def __init__(self) -> None:
        self.places: deque[Place] = deque()
        self.waiting = 0
        self.moved = asyncio.Event()


class Lanes:
    """One lane for each sender and target that has a send under way."""

    def __init__(self) -> None:
        self._lanes: dict[Key, _Lane] = {}

    def enter(self, key: Key) -> Place:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        place = Place(lane)
        lane.places.append(place)
        return place

    def leave(self, key: Key, place: Place) -> None:
        lane = self._lanes[key]
        if lane.places[0] is place:
            lane.places.popleft()
        else:
            lane.places.remove(place)
        if not lane.places:
            del self._lanes[key]
        elif lane.waiting:
            lane.moved.set()
