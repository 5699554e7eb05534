"""The watchdog: the manager ends a daemon that has stopped saying that it is well, and starts another.

It is fed from the event loop, so a loop that is blocked feeds nothing; and only while every task does its work.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence

from meshd.service.sd_notify import Notifier

log = logging.getLogger("meshd.service")


def interval(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Seconds between two feedings: a third of what the manager allows. None if it does not watch this process."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    ours = str(os.getpid() if pid is None else pid)
    if not microseconds.isdigit() or int(microseconds) == 0 or environ.get("WATCHDOG_PID", ours) != ours:
        return None
    # sd_watchdog_enabled(3) advises a half; a third leaves room for one that comes late.
    return int(microseconds) / 1e6 / 3


async def feed(notifier: Notifier, seconds: float, stuck: Callable[[], Sequence[str]]) -> None:
    """Until cancelled. `stuck` names what has stopped working; it is empty while all is well."""
    found = 0
    while True:
        if not (names := stuck()):
            found = 0
            notifier.tell("WATCHDOG=1")
        else:
            # Once may be a task between its end and its next start; the manager waits for three of these.
            found += 1
            if found == 2:
                log.error("not working any more: %s; the manager will start the daemon again", ", ".join(names))
        await asyncio.sleep(seconds)
