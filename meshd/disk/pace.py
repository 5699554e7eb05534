"""Long work in a thread that lets the event loop live: both need the interpreter, which has one lock."""

from __future__ import annotations

import threading
import time

SLICE = 0.001  # seconds of work between two rests
# Seconds. With 0 the interpreter often goes on with the very thread that has given it up.
REST = 0.0001


class Pace:
    """Called between two pieces of work, each far shorter than a `SLICE`: rests when a slice is over.

    On the main thread it never rests: there is nobody whom that would help.
    """

    def __init__(self) -> None:
        self._aside = threading.current_thread() is not threading.main_thread()
        self._since = time.monotonic()

    def __call__(self) -> None:
        if self._aside and time.monotonic() - self._since > SLICE:
            time.sleep(REST)
            self._since = time.monotonic()
