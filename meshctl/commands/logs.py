"""`meshctl logs`: the end of the daemon's log and what is added to it, over its rotations."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO

from meshctl import rpc
from meshctl.printing import JsonLines, plain
from meshctl.service import here
from meshd import paths
from meshd.commands.base import Printed
from meshd.disk.files import holder
from meshd.errors import NotFound

PAUSE = 0.25  # a log does not tell that it has changed; this is a person who watches
KEPT = 3  # meshd.__main__.LOG_KEPT
_ASK = 2.0


def logs(*, follow: bool, count: int, as_json: bool) -> Printed:
    """The last lines of the log, and with `follow` what is added, until interrupted. Raises `NotFound`."""
    path = paths.daemon_log()
    show = JsonLines().write if as_json else plain
    _journal(show, follow, count, as_json=as_json)
    try:
        log = _Log(path)
    except OSError as error:
        raise NotFound(f"no log at {path}: {error.strerror}", "meshctl up") from None
    for line in log.last(max(0, count)):
        show(line)
    while follow:
        time.sleep(PAUSE)
        for text in log.added():
            show(text)
    return Printed()


def _journal(show: Callable[[bytes], None], follow: bool, count: int, *, as_json: bool) -> None:
    """Where the journal has the log: `journalctl` shows it, and its end is ours. Returns where a file has it."""
    managed_by = _managed_by()
    if managed_by is None:
        service = here.enabled()
        managed_by = service.name if service is not None else None
    if managed_by != "systemd":
        return
    command = ["journalctl", "--user", "-u", "meshd", "-n", str(max(0, count)), *(["-f"] if follow else [])]
    try:
        if not as_json:
            os.execvp(command[0], [*command, "--no-pager"])  # noqa: S606
        with subprocess.Popen([*command, "--no-pager"], stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            for line in running.stdout:
                show(line)
        raise SystemExit(running.returncode)
    except OSError as error:
        what = f"the log is in systemd's journal, and journalctl cannot be run: {error.strerror}"
        raise NotFound(what, " ".join(command)) from None


def _managed_by() -> str | None:
    """Who looks after the daemon that runs; None if none does, or it does not say."""
    if holder(paths.socket_path() + ".lock") is None:
        return None  # asking the socket of a service would start it
    connection = rpc.connect(_ASK)
    if connection is None:
        return None
    with connection:
        try:
            return str(connection.call("hello")["managed_by"])
        except (OSError, ValueError, KeyError):
            return None


class _Log:
    """A log that is rotated by rename to `path.1`, `path.2` …, read on from file to file. Raises `OSError`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = self._open(path)

    @staticmethod
    def _open(path: str) -> BinaryIO:
        return open(path, "rb")

    def last(self, count: int) -> deque[bytes]:
        """The last lines; those of a file that has just been rotated, too."""
        lines = deque(self._file, maxlen=count)
        if len(lines) < count and os.path.exists(f"{self._path}.1"):
            with self._open(f"{self._path}.1") as older:
                lines = deque([*deque(older, maxlen=count - len(lines)), *lines], maxlen=count)
        return lines

    def added(self) -> Iterator[bytes]:
        """What was written since the last look: the rest of the file first, then the files that came after it."""
        yield self._file.read()
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # somebody emptied it
            yield self._file.read()
        for path in self._newer():
            try:
                opened = self._open(path)
            except OSError:  # rotated once more; the next look finds it
                return
            # Between our last read and its rename something may have been written.
            yield self._file.read()
            self._file.close()
            self._file = opened
            yield self._file.read()

    def _newer(self) -> list[str]:
        """The files that were begun after ours, oldest first. All there are if ours has been rotated away."""
        names = [*(f"{self._path}.{k}" for k in range(KEPT, 0, -1)), self._path]
        ours = os.fstat(self._file.fileno())
        there = [name for name in names if os.path.exists(name)]
        for k, name in enumerate(there):
            try:
                if os.path.samestat(os.stat(name), ours):
                    return there[k + 1 :]
            except OSError:
                continue
        return there
