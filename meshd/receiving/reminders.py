"""The clock of one agent's ledger: re-pings and escalations, on time, and sent until the store has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from meshd.core.backoff import Backoff
from meshd.core.ledger import PAUSES, Escalate, Reping
from meshd.core.wire import Outgoing
from meshd.errors import Busy, StoreError, UsageError
from meshd.observing.background import Background
from meshd.system import clock

if TYPE_CHECKING:
    from meshd.receiving.agent import Agent, Shared

log = logging.getLogger("meshd.agent")

# Seconds after which the wall clock is looked at again: a timer stands still while the machine sleeps.
LOOK_AGAIN = 60.0


class Reminders:
    """What falls due in one agent's ledger. Deadlines are wall times: a machine that slept is late by a look at most,
    and a clock that is set back makes nothing later than it would have been.
    """

    def __init__(self, agent: Agent, shared: Shared) -> None:
        self._agent = agent
        self._shared = shared
        self._timer: asyncio.TimerHandle | None = None
        self._due: dict[tuple[str, float], float] = {}  # entry and its wall time -> the same in monotonic seconds
        self._ticking = False
        self._resending = False
        # When the target's mailbox was found full, in monotonic seconds, by the id of what was to be sent.
        self._full_since: dict[str, float] = {}
        self._background = Background(log, {"agent": agent.name})

    @property
    def wound(self) -> bool:
        """Whether something is waited for."""
        return bool(self._due)

    def wind(self) -> None:
        """Set the timer for what is due next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wall, mono = clock.wall(), clock.mono()
        entries = self._agent.core.ledger.entries.values()
        due = {(entry.id, entry.due): mono + entry.due - wall for entry in entries if entry.due}
        # The smaller of both clocks' waits: what was due in a minute is, wherever the wall clock is set to.
        self._due = {key: min(at, self._due.get(key, at)) for key, at in due.items()}
        if self._due and not self._ticking:
            delay = min(LOOK_AGAIN, max(0.0, min(self._due.values()) - mono))
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = clock.mono()
        fallen = {entry_id for (entry_id, _), at in self._due.items() if at <= now}
        if fallen:
            self._ticking = True
            self._background.start(self._tick(fallen), f"{self._agent.name}: reminders")
        else:
            self.wind()

    async def _tick(self, fallen: Collection[str]) -> None:
        try:
            await self._agent.insist(lambda: self._agent.core.tick(clock.wall(), fallen))
        finally:
            self._ticking = False
            self.wind()
        self.resend()

    def resend(self) -> None:
        """Send what was decided and is not known to be sent."""
        if not self._resending and self._agent.core.ledger.unsent():
            self._resending = True
            self._background.start(self._send_all(), f"{self._agent.name}: re-pings")

    async def _send_all(self) -> None:
        """Send what the ledger decided, until the store has it. Their ids make a repetition harmless."""
        backoff = Backoff(cap=30.0)
        try:
            while actions := self._agent.core.ledger.unsent():
                sent = [await self._send(action) for action in actions]
                kept = {action.id for action in actions}
                self._full_since = {key: since for key, since in self._full_since.items() if key in kept}
                if all(sent):
                    backoff.reset()
                else:
                    await self._shared.commands.back_up(backoff)
                    await asyncio.sleep(min(backoff.next(), self._until_given_up(actions)))
        finally:
            self._resending = False

    async def _send(self, action: Reping | Escalate) -> bool:
        """Whether the store has it."""
        agent = self._agent
        escalate_to = self._shared.settings().escalate_to
        target = escalate_to if isinstance(action, Escalate) else action.to
        # An escalation is a message of its own for the watchdog, a re-ping is about one that the target has.
        field = "thread" if isinstance(action, Escalate) else "about"
        out = Outgoing(
            action.id, agent.name, target, action.text, private=True, fields=(field, action.about), gated=False
        )
        try:
            await self._shared.outbox.send(out)
        except UsageError:
            pass  # sent under this id by an earlier run, to the watchdog of that time
        except Busy as error:
            return await self._wait_for_room(action, error)
        except StoreError as error:
            about = {"agent": agent.name, "message_id": action.about}
            log.debug("%s: a re-ping waits for the store: %s", agent.name, error.message, extra=about)
            return False
        await agent.insist(lambda: agent.core.mark_sent(action.about, clock.wall()))
        return True

    async def _wait_for_room(self, action: Reping | Escalate, error: Busy) -> bool:
        """The mailbox is full. A re-ping is tried until the next step would be due; an escalation has no next one."""
        agent = self._agent
        if action.id not in self._full_since:
            self._full_since[action.id] = clock.mono()
            about = {"agent": agent.name, "message_id": action.about}
            log.warning("%s: a re-ping waits: %s", agent.name, error.message, extra=about)
        if self._until_given_up([action]) > 0:
            return False
        await agent.insist(lambda: agent.core.bounce(action.about, error.message, clock.wall()))
        return True

    def _until_given_up(self, actions: Sequence[Reping | Escalate]) -> float:
        """Seconds until the first of these that waits for room is given up; without end if there is none."""
        ends = [
            self._full_since[action.id] + PAUSES[action.k - 1]
            for action in actions
            if isinstance(action, Reping) and action.id in self._full_since
        ]
        return max(0.0, min(ends) - clock.mono()) if ends else float("inf")

    async def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._background.end()
