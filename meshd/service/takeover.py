"""A daemon that a manager starts, where one runs that was started by hand: the old one is ended, as by `down`.

A manager that makes the socket takes its path over from a live daemon without a word, and nobody could reach that
one any more; it would keep its agents, and the lock that the service needs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time

from meshd.disk.files import Lock, holder
from meshd.errors import AlreadyRunning, ConfigError

log = logging.getLogger("meshd.service")

PATIENCE = 40.0  # seconds that a daemon may take to give up its leases and to stop its store


def take_over(lock: Lock) -> None:
    """Acquire the lock; end its holder by SIGTERM if there is one, and wait. Blocks.

    Raises `ConfigError` if the holder does not end or cannot be told to. It may have ended since we looked, and its
    number been given to another process: that takes longer than the microseconds between, because a number is not
    used again before all others were.
    """
    until = time.monotonic() + PATIENCE
    told: int | None = None
    while True:
        try:
            lock.acquire()
            return
        except AlreadyRunning as error:
            if time.monotonic() > until:
                pid = error.data.get("pid")
                raise ConfigError(
                    f"{error.message}; it has not ended within {PATIENCE:g} s",
                    f"kill -9 {pid}; meshctl service restart" if pid else "meshctl doctor",
                ) from None
        # A number that another container has written into the lock means somebody else here: such one is not touched.
        running = holder(lock.path)
        if running is not None and running != told:
            told = running
            log.info("a daemon that was started by hand runs (pid %d): it is ended, its agents go on here", running)
            with contextlib.suppress(OSError):
                os.kill(running, signal.SIGTERM)
        time.sleep(0.05)  # a lock tells nobody that it was let go
