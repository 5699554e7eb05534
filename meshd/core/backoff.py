"""Exponential backoff with full jitter, as a value."""

from __future__ import annotations

import random


class Backoff:
    """Pauses between attempts, in seconds: uniform in (0, min(cap, base·2ⁿ)], never below a tenth of it.

    Full jitter (Brooker, "Exponential Backoff And Jitter", 2015), with a floor so that a thousand readers
    that lose one server don't all come back in the same millisecond.
    """

    def __init__(self, base: float = 0.05, cap: float = 5.0) -> None:
        self.base = base
        self.cap = cap
        self.attempts = 0
        self._last = 0.0

    def next(self, cap: float | None = None) -> float:
        """The next pause; at most `cap`, where that is known to be lower."""
        ceiling = min(self.cap if cap is None else min(cap, self.cap), self.base * 2 ** min(self.attempts, 30))
        self.attempts += 1
        self._last = random.uniform(ceiling / 10, ceiling)
        return self._last

    def stood(self, seconds: float) -> None:
        """Start over after an attempt that succeeded, and stood for so long before it ended.

        Unless the pause before it was longer: what ends again and again as soon as it succeeds is not hurried.
        """
        if seconds > self._last:
            self.reset()

    def reset(self) -> None:
        self.attempts = 0
