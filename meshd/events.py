"""What happens now, for whoever subscribed: numbered, bounded, never waited for."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

QUEUE = 1000

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
    """Numbers each event and hands it to every subscription."""

    def __init__(self) -> None:
        self.last = 0
        self._subscriptions: set[Subscription] = set()

    def publish(self, what: str, **facts: Any) -> None:
        self.last += 1
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
