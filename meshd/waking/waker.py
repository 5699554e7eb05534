"""Carries out what an agent's wake ladder decides: its timer, and the bells that ring the rungs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from meshd.core.unread import UnreadMail
from meshd.core.wake import Ladder
from meshd.observing.events import EventHub
from meshd.system.clock import mono, wall

log = logging.getLogger("meshd.wake")

SHOWN_SENDERS = 5

# Rings a rung with one line of text. It returns at once; that it failed is told by `Waker.disarm`.
Bell = Callable[[str], None]


class Waker:
    """Wakes one agent's session until it reads. `unread` is the mail that waits."""

    def __init__(self, name: str, unread: UnreadMail, events: EventHub) -> None:
        self.ladder = Ladder()
        self._name = name
        self._unread = unread
        self._events = events
        self._bells: dict[str, Bell] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rung = ""  # the line of the last ring
        self._closed = False

    def mail(self, *, awaited: bool = False) -> None:
        """New unread mail, or a reminder of some. `awaited`: somebody waits for it, and may read it by himself."""
        self.ladder.mail(mono(), awaited=awaited)
        self._wind()

    def read(self, left: int) -> None:
        self.ladder.read(left, mono(), wall())
        self._wind()

    def arm(self, rung: str, bell: Bell, wait: float) -> None:
        """Ring this rung with that bell from now on; an earlier bell of the rung is forgotten.

        `wait`: seconds for which mail that waits for a rung goes on waiting.
        """
        self._bells[rung] = bell
        self._find()
        self.ladder.arm(rung, mono(), wait)
        self._wind()

    def disarm(self, rung: str, bell: Bell | None = None, why: str | None = None) -> None:
        """Not this rung any more, if the bell is still the one that was armed. `why`: it failed."""
        if rung not in self._bells or (bell is not None and self._bells[rung] != bell):
            return
        del self._bells[rung]
        self.ladder.disarm(rung, mono(), why)
        if why is not None:
            log.warning("%s: the %s rung failed: %s", self._name, rung, why)
            self._events.publish("wake.failed", agent=self._name, rung=rung, why=why)
        self._wind()

    def stepped(self) -> None:
        self.ladder.stepped(mono())
        self._wind()

    def rested(self) -> None:
        self.ladder.rested(mono())
        self._wind()

    def anew(self) -> None:
        """Another reader goes by this name now, or the one that did has gone: nobody was told of anything."""
        self._find()
        self.ladder.anew(mono())
        self._wind()

    def tell(self) -> str | None:
        """One line for a session that is between two steps, or None if it was told already."""
        self._find()
        return self.line() if self._unread and self.ladder.tell() else None

    def heard(self, prompt: str) -> None:
        """The session has been given this: if it is what was rung, it needs no telling."""
        if self._rung and self._rung in prompt:
            self.ladder.heard()

    def line(self) -> str:
        """Who and how many are unread at this moment; never a word of theirs."""
        senders = sorted(self._unread.senders())
        more = f" and {len(senders) - SHOWN_SENDERS} more" if len(senders) > SHOWN_SENDERS else ""
        return (
            f"agent-mesh: {len(self._unread)} unread from {', '.join(senders[:SHOWN_SENDERS])}{more}: call mesh_inbox"
        )

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
        self._wind()

    @property
    def worked(self) -> dict[str, Any] | None:
        """What woke the agent last; None if nothing has yet."""
        return None if self.ladder.worked is None else self.ladder.worked._asdict()

    def summary(self) -> dict[str, Any]:
        """How the agent is woken: what is armed, what rings, what worked last, what failed, since when mail waits."""
        self._find()
        ladder, now = self.ladder, mono()
        since = ladder.waiting_since
        return {
            "armed": ladder.ladder(),
            "ringing": None if ladder.rung in ladder.failed else ladder.rung,
            "busy": ladder.busy(now),
            "waiting_since": None if since is None else wall() - (now - since),
            "worked": self.worked,
            "failed": dict(ladder.failed),
        }

    def _find(self) -> None:
        """Mail of an earlier run waits, too."""
        if self.ladder.waiting_since is None and self._unread:
            self.ladder.found(mono())

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = None if self._closed else self.ladder.next_due()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - mono()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        rung = self.ladder.tick(mono())
        self._wind()  # first: whatever a bell does, there is a next step
        if rung is not None and self._unread:
            self._rung = line = self.line()
            self._events.publish("wake.rung", agent=self._name, rung=rung, line=line)
            self._bells[rung](line)
