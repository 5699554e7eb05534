"""What happens now, for whoever subscribed: numbered, bounded, never waited for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

from meshd.core.text import one_line

log = logging.getLogger("meshd.events")

QUEUE = 1000
# In the log, too, where it is read by agent, event and message id. What happens with every message is for debugging.
_LOGGED = {"agent.registered": logging.INFO, "agent.deregistered": logging.INFO, "message.lost": logging.WARNING}

Event = dict[str, Any]


class Subscription:
    """One subscriber's queue. `lagged` is set, and nothing more is queued, once it was full."""

    def __init__(self) -> None:
        self.queue: deque[Event] = deque()
        self.ready = asyncio.Event()
        self.lagged = False

    def put(self, event: Event) -> None:
        if self.lagged:
            return
        if len(self.queue) >= QUEUE:
            self.lagged = True
        else:
            self.queue.append(event)
        self.ready.set()

    async def next(self, timeout: float) -> Event | None:
        """The next event, or None after `timeout` seconds without one, or when this subscriber lagged."""
        if not self.queue and not self.lagged:
            self.ready.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self.ready.wait()
            except TimeoutError:
                return None
        return self.queue.popleft() if self.queue else None


class EventHub:
    """Numbers each event and hands it to every subscription. `moved` is set at each, for whoever needs no more."""

    def __init__(self) -> None:
        self.last = 0
        self.moved = asyncio.Event()
        self._subscriptions: set[Subscription] = set()

    def publish(self, what: str, **facts: Any) -> None:
        self.last += 1
        self.moved.set()
        level = _LOGGED.get(what, logging.DEBUG)
        if log.isEnabledFor(level):
            _log(level, what, facts)
        if self._subscriptions:
            event = {"seq": self.last, "ts": time.time(), "event": what, **facts}
            for subscription in self._subscriptions:
                subscription.put(event)

    def subscribe(self) -> Subscription:
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)


def _log(level: int, what: str, facts: dict[str, Any]) -> None:
    """What happened to whom. Nothing else of the facts: a log is read by more people than the mail."""
    agent, message, count = (facts.get(key) for key in ("agent", "id", "count"))
    said = " ".join(str(part) for part in (what, agent, message, count) if part is not None)
    log.log(level, "%s", one_line(said), extra={"event": what, "agent": agent, "message_id": message})
