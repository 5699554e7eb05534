"""Turns: what keeps the sends of one sender to one target in order while some of them have to wait.

Sends that go out at once need no turn: the connection keeps their order. One that waits, for the disk, for a store
that is down or for room in a mailbox, closes its lane: those behind it wait until it has ended. While it waits for
room they wait for as long as they want to wait for that themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from meshd.store.scripts.sending import SendResult
from meshd.system import clock

Key = tuple[str, str]


class HeldUp(Exception):
    """Those before wait for room in the mailbox, and here nobody waits any longer. `sent`: what they were told."""

    def __init__(self, sent: SendResult) -> None:
        super().__init__()
        self.sent = sent


class Place:
    """A send's place in its lane."""

    __slots__ = ("_lane",)

    def __init__(self, lane: _Lane) -> None:
        self._lane = lane

    @property
    def is_open(self) -> bool:
        """Whether nobody waits in the lane: the send may go out at once, behind those that did."""
        return not self._lane.waiting

    @property
    def before(self) -> int:
        """How many sends are under way before it, for the one that came last."""
        return len(self._lane.places) - 1

    @contextlib.asynccontextmanager
    async def turn(self, patience: float = 0.0) -> AsyncIterator[None]:
        """Wait until everything before has ended; until this block ends, everything behind waits.

        Raises `HeldUp` when those before wait for room and `patience`, in seconds from now, is over.
        """
        lane, until = self._lane, clock.mono() + patience
        lane.waiting += 1
        try:
            while lane.places[0] is not self:
                lane.moved.clear()
                left = None if lane.held_up is None else until - clock.mono()
                if lane.held_up is not None and until <= clock.mono():
                    raise HeldUp(lane.held_up)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await lane.moved.wait()
            yield
        finally:
            lane.waiting -= 1

    def hold_up(self, sent: SendResult | None) -> None:
        """The send whose turn it is was told this, and waits for room; None: it does no more."""
        lane = self._lane
        if (lane.held_up is None) != (sent is None):
            lane.moved.set()
        lane.held_up = sent


class _Lane:
    __slots__ = ("held_up", "moved", "places", "waiting")

    def __init__(self) -> None:
        self.places: deque[Place] = deque()
        self.waiting = 0
        self.moved = asyncio.Event()
        self.held_up: SendResult | None = None  # the first waits for room


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
