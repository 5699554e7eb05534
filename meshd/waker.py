"""Carries out what an agent's wake ladder decides: its timer, and the bells that ring the rungs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from meshd.core.message import Message
from meshd.core.wake import GATHER, Ladder
from meshd.events import EventHub

log = logging.getLogger("meshd.wake")

SHOWN_SENDERS = 5

# Rings a rung with one line of text. It returns at once; that it failed is told by `Waker.disarm`.
Bell = Callable[[str], None]


class Waker:
    """Wakes one agent's session until it reads. `unread` gives the mail that waits."""

    def __init__(self, name: str, unread: Callable[[], Collection[Message]], events: EventHub) -> None:
        self.ladder = Ladder()
        self._name = name
        self._unread = unread
        self._events = events
        self._bells: dict[str, Bell] = {}
        self._timer: asyncio.TimerHandle | None = None

    def mail(self) -> None:
        self.ladder.mail(time.time())
        self._wind()

    def read(self, left: int) -> None:
        self.ladder.read(left, time.time())
        self._wind()

    def arm(self, rung: str, bell: Bell, wait: float = GATHER) -> None:
        """Ring this rung with that bell from now on; an earlier bell of the rung is forgotten."""
        self._bells[rung] = bell
        if self._unread() and self.ladder.waiting_since is None:
            self.ladder.found(time.time())
        self.ladder.arm(rung, time.time(), wait)
        self._wind()

    def disarm(self, rung: str, bell: Bell | None = None, why: str | None = None) -> None:
        """Not this rung any more, if the bell is still the one that was armed. `why`: it failed."""
        if rung not in self._bells or (bell is not None and self._bells[rung] != bell):
            return
        del self._bells[rung]
        self.ladder.disarm(rung, time.time(), why)
        if why is not None:
            log.warning("%s: the %s rung failed: %s", self._name, rung, why)
            self._events.publish("wake.failed", agent=self._name, rung=rung, why=why)
        self._wind()

    def stepped(self) -> None:
        self.ladder.stepped(time.time())
        self._wind()

    def rested(self) -> None:
        self.ladder.rested(time.time())
        self._wind()

    def tell(self) -> str | None:
        """One line for a session that is between two steps, or None if it was told already."""
        return self.line() if self._unread() and self.ladder.tell() else None

    def line(self) -> str:
        """Who and how many; never a word of theirs."""
        unread = self._unread()
        senders = sorted({message.sender for message in unread})
        more = f" and {len(senders) - SHOWN_SENDERS} more" if len(senders) > SHOWN_SENDERS else ""
        return f"agent-mesh: {len(unread)} unread from {', '.join(senders[:SHOWN_SENDERS])}{more}: call mesh_inbox"

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def summary(self) -> dict[str, Any]:
        """How the agent is woken: what is armed, what rings, what worked last, what failed, since when mail waits."""
        ladder = self.ladder
        return {
            "armed": ladder.ladder(),
            "ringing": ladder.rung,
            "busy": ladder.busy(time.time()),
            "waiting_since": ladder.waiting_since,
            "worked": ladder.worked._asdict() if ladder.worked else None,
            "failed": dict(ladder.failed),
        }

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.ladder.next_due()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - time.time()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        rung = self.ladder.tick(time.time()) if self._unread() else None
        if rung is not None:
            line = self.line()
            self._events.publish("wake.rung", agent=self._name, rung=rung, line=line)
            self._bells[rung](line)
        self._wind()
