"""A check that may hang: in a thread of its own, which is not waited for longer than there is time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from meshctl.doctor.finding import Finding

T = TypeVar("T")


class Job(Generic[T]):
    """Begins at once. `next_` is the command to type if it hangs. What it raises harms no other check."""

    def __init__(self, area: str, work: Callable[[], T], next_: str) -> None:
        self.hangs = False
        self._area = area
        self._work = work
        self._next = next_
        self._result: T | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"doctor: {area}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            result = self._work()
            # A generator does its work when it is asked: here, and not where it would be waited for.
            self._result = list(result) if isinstance(result, Iterable) else result  # type: ignore[assignment]
        except Exception as error:
            self.error = error

    def result(self, until: float) -> T | None:
        """What it gives, or None if it hangs or failed."""
        self._thread.join(max(0.0, until - time.monotonic()))
        self.hangs = self._thread.is_alive()
        return self._result

    def said(self) -> Finding:
        if self.error is not None:
            what = f"the check of the {self._area} failed: {self.error!r}"
            return Finding("error", self._area, what, "meshctl logs -n 50")
        what = f"the check of the {self._area} hangs, or is late on a machine that is very busy"
        return Finding("error", self._area, what, self._next)
