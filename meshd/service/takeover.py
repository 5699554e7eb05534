"""A daemon that a manager starts, where one runs that was started by hand: the old one is ended, as by `down`.

A manager that makes the socket takes its path over from a live daemon without a word, and nobody could reach that
one any more; it would keep its agents, and the lock that the service needs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time

from meshd.disk.files import Lock
from meshd.errors import AlreadyRunning, ConfigError

log = logging.getLogger("meshd.service")

PATIENCE = 40.0  # seconds that a daemon may take to give up its leases and to stop its store


def take_over(lock: Lock) -> None:
    """Acquire the lock; end its holder if there is one, and wait. Blocks.

    Raises `ConfigError` if the holder does not end or cannot be told to.
    """
    until = time.monotonic() + PATIENCE
    told: int | None = None
    while True:
        try:
            lock.acquire()
            return
        except AlreadyRunning as error:
            pid = error.data.get("pid")
            if time.monotonic() > until:
                raise ConfigError(
                    f"{error.message}; it has not ended within {PATIENCE:g} s",
                    f"kill -9 {pid}; meshctl service restart" if pid else "meshctl doctor",
                ) from None
        if pid is not None and pid != told and _holds(pid, lock.path):
            told = pid
            log.info("a daemon that was started by hand runs (pid %d): it is ended, its agents go on here", pid)
            _end(pid, until)
        else:
            time.sleep(0.05)  # a lock tells nobody that it was let go


def _holds(pid: int, path: str) -> bool:
    """Whether that process has the lock's file open: a number from another container means somebody else here."""
    folder = f"/proc/{pid}/fd"
    try:
        wanted = os.stat(path)
        # Without a /proc, as on macOS, nobody else's numbers can be in the file.
        return not os.path.isdir("/proc/self") or any(_is(f"{folder}/{fd}", wanted) for fd in os.listdir(folder))
    except OSError:
        return False


def _is(path: str, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):  # closed since it was listed
        return os.path.samestat(os.stat(path), wanted)
    return False


def _end(pid: int, until: float) -> None:
    """SIGTERM, and wait for the process to go, at the longest `until`.

    It may have ended since we looked, and its number been given to another process: that takes longer than the
    microseconds between, because a number is not used again before all others were.
    """
    if not hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGTERM)
        return
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(process, signal.SIGTERM)
        select.select([process], [], [], max(0.0, until - time.monotonic()))
    finally:
        os.close(process)
