"""The heartbeat of the command connection: it is heard from every moment or two, and so its end is noticed in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from meshd.core.clock import Stored
from meshd.store import replies
from meshd.store.pulse import HEARTBEAT, NOTICED
from meshd.system import clock


class Heartbeat:
    """Begun with each connection. `ask` asks for the time, unless something else is asked; `heard` is told of answers.

    What is asked is the store's clock: the one that machines whose own clocks are hours apart have in common.
    """

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._answered = clock.mono()
        self._ahead: float | None = None  # seconds from our monotonic clock to the store's
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self.heard()
        self._beat()

    def heard(self) -> None:
        """An answer has come."""
        self._answered = clock.mono()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        silent = clock.mono() - self._answered
        if silent >= HEARTBEAT or self._ahead is None:
            self._ask()
        pause = HEARTBEAT if silent >= HEARTBEAT else HEARTBEAT - silent
        self._timer = asyncio.get_running_loop().call_later(pause, self._beat)

    @property
    def patience(self) -> float:
        """Seconds that what is asked now may take: from the last word on, so that the end is noticed in time."""
        return NOTICED - min(HEARTBEAT, clock.mono() - self._answered)

    def read(self, reply: object) -> None:
        """The answer to what is asked. Raises `Garbled`."""
        self._ahead = replies.clock(reply) - clock.mono()

    def store_time(self) -> Stored:
        """What the store's clock shows, as far as it is known."""
        return Stored(clock.wall() if self._ahead is None else clock.mono() + self._ahead)
