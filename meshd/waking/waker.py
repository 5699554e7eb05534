"""Carries out what an agent's wake ladder decides: its timer, and the bells that ring the rungs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import Any

from meshd.core.message import Message
from meshd.core.wake import GATHER, Ladder, Worked
from meshd.observing.events import EventHub

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
        self._rung = ""  # the line of the last ring
        self._worked: Worked | None = None  # the ladder's, in wall seconds
        self._closed = False

    def mail(self) -> None:
        self.ladder.mail(time.monotonic())
        self._wind()

    def read(self, left: int) -> None:
        before = self.ladder.worked
        self.ladder.read(left, time.monotonic())
        if self.ladder.worked is not None and self.ladder.worked is not before:
            self._worked = self.ladder.worked._replace(at=time.time())
        self._wind()

    def arm(self, rung: str, bell: Bell, wait: float = GATHER) -> None:
        """Ring this rung with that bell from now on; an earlier bell of the rung is forgotten."""
        self._bells[rung] = bell
        self._find()
        self.ladder.arm(rung, time.monotonic(), wait)
        self._wind()

    def disarm(self, rung: str, bell: Bell | None = None, why: str | None = None) -> None:
        """Not this rung any more, if the bell is still the one that was armed. `why`: it failed."""
        if rung not in self._bells or (bell is not None and self._bells[rung] != bell):
            return
        del self._bells[rung]
        self.ladder.disarm(rung, time.monotonic(), why)
        if why is not None:
            log.warning("%s: the %s rung failed: %s", self._name, rung, why)
            self._events.publish("wake.failed", agent=self._name, rung=rung, why=why)
        self._wind()

    def stepped(self) -> None:
        self.ladder.stepped(time.monotonic())
        self._wind()

    def rested(self) -> None:
        self.ladder.rested(time.monotonic())
        self._wind()

    def anew(self) -> None:
        """Another reader goes by this name now, or the one that did has gone: nobody was told of anything."""
        self._find()
        self.ladder.anew(time.monotonic())
        self._wind()

    def tell(self) -> str | None:
        """One line for a session that is between two steps, or None if it was told already."""
        self._find()
        return self.line() if self._unread() and self.ladder.tell() else None

    def heard(self, prompt: str) -> None:
        """The session has been given this: if it is what was rung, it needs no telling."""
        if self._rung and self._rung in prompt:
            self.ladder.heard()

    def line(self) -> str:
        """Who and how many; never a word of theirs."""
        unread = self._unread()
        senders = sorted({message.sender for message in unread})
        more = f" and {len(senders) - SHOWN_SENDERS} more" if len(senders) > SHOWN_SENDERS else ""
        return f"agent-mesh: {len(unread)} unread from {', '.join(senders[:SHOWN_SENDERS])}{more}: call mesh_inbox"

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
        self._wind()

    def summary(self) -> dict[str, Any]:
        """How the agent is woken: what is armed, what rings, what worked last, what failed, since when mail waits."""
        self._find()
        ladder, now = self.ladder, time.monotonic()
        since = ladder.waiting_since
        return {
            "armed": ladder.ladder(),
            "ringing": None if ladder.rung in ladder.failed else ladder.rung,
            "busy": ladder.busy(now),
            "waiting_since": None if since is None else time.time() - (now - since),
            "worked": None if self._worked is None else self._worked._asdict(),
            "failed": dict(ladder.failed),
        }

    def _find(self) -> None:
        """Mail of an earlier run waits, too."""
        if self.ladder.waiting_since is None and self._unread():
            self.ladder.found(time.monotonic())

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = None if self._closed else self.ladder.next_due()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        rung = self.ladder.tick(time.monotonic())
        self._wind()  # first: whatever a bell does, there is a next step
        if rung is not None and self._unread():
            self._rung = line = self.line()
            self._events.publish("wake.rung", agent=self._name, rung=rung, line=line)
            self._bells[rung](line)
