"""`logs` and `events -f`: what a person watches, over rotations of the log and restarts of the daemon."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from meshctl.client import Lost, answers, complain, connect, tell, write
from meshd import paths
from meshd.commands.base import Printed
from meshd.control.cli import encode
from meshd.disk.files import holder
from meshd.errors import NotFound

PAUSE = 0.25  # neither a log nor a socket tells that it has changed; this is a person who watches
KEPT = 3  # meshd.__main__.LOG_KEPT
_ASK = 2.0


# --- logs ---


def logs(*, follow: bool, count: int, as_json: bool) -> Printed:
    """The last lines of the log, and with `follow` what is added, until interrupted. Raises `NotFound`."""
    path = paths.daemon_log()
    show = JsonLines().write if as_json else show_plain
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


def show_plain(text: bytes) -> None:
    write(1, text)


class JsonLines:
    """Writes each whole line of what it is given, in pieces, as a JSON object."""

    def __init__(self) -> None:
        self._rest = b""

    def write(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        write(1, "".join(encode({"line": line.decode("utf-8", "replace")}) for line in lines))


def _journal(show: Callable[[bytes], None], follow: bool, count: int, *, as_json: bool) -> None:
    """Where the journal has the log: `journalctl` shows it, and its end is ours. Returns where a file has it."""
    managed_by = _managed_by()
    if managed_by is None:
        from meshctl.service import here

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
    connection = connect()
    if connection is None:
        return None
    with socket.socket(fileno=connection.detach()) as asked:
        asked.settimeout(_ASK)
        try:
            asked.sendall(b'{"jsonrpc":"2.0","id":1,"method":"hello"}\n')
            with asked.makefile("rb") as lines:
                said = json.loads(lines.readline())["result"]["managed_by"]
        except (OSError, ValueError, KeyError):
            return None
    return str(said)


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


# --- events -f ---


def events(arguments: list[str], request: bytes) -> int:
    """`events -f`: when the daemon goes, say so, wait until there is one again, and go on. It never starts a second.

    The exit code, if it is the daemon that ends it.
    """
    connection: Any = connect()
    if connection is None:
        from meshctl.commands import table

        connection = table.start_for(arguments, resumed=False)
        if isinstance(connection, int):
            return connection
    while True:
        try:
            code = _follow(connection, request)
        finally:
            connection.close()
        if code is not None:
            return code
        complain("meshd has gone; waiting for it to come back\n")
        connection = _next_daemon()
        complain("meshd is back\n")


def _follow(connection: Any, request: bytes) -> int | None:
    """Write what comes. The exit code, or None when the daemon has gone."""
    tell(connection, request)
    try:
        for answer in answers(connection):
            if "method" in answer:
                params = answer["params"]
                write(params["fd"], params["text"])
                tell(connection, b'{"jsonrpc":"2.0","method":"cli.ack","params":{"n":%d}}\n' % params["ack"])
            elif "error" in answer:
                if answer["error"]["data"]["kind"] == "stopping":
                    return None
                complain(f"{answer['error']['message']}\n  next: {answer['error']['data']['hint']}\n")
                return 1
            else:
                write(2, answer["result"]["err"])
                write(1, answer["result"]["out"])
                return int(answer["result"]["code"])
    except Lost:
        pass
    return None


def _next_daemon() -> Any:
    """A connection to the next daemon. It is waited for by its lock: the socket of a service would start one."""
    lock = paths.socket_path() + ".lock"
    while True:
        time.sleep(PAUSE)
        if holder(lock) is not None and (connection := connect()) is not None:
            return connection
