"""The way to the gateway, however long it takes; the client is listened to meanwhile."""

import os
import select
import sys
import time

from meshctl.client import connect, connected, socket, write
from meshctl.shim.unanswered import parsed
from meshd import paths

try:
    import _signal as signal  # type: ignore[import-not-found]  # `signal` itself loads `enum`
except ImportError:
    import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)
CHUNK = 1 << 16
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0


class Ended(Exception):
    """The client has closed its end, or asked us to stop."""


class _Waiting:
    """A place where a signal may end us: only there, so that none comes between making something and keeping it."""

    def __enter__(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    def __exit__(self, *exc: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


WAITING = _Waiting()


class Way:
    """From this session to its daemon's gateway. Whoever waits here raises `Ended` when the client has gone.

    `hear` reads what the client says; `waiting` counts the requests that are open.
    """

    def __init__(self, hear: "Callable[[], None]", waiting: "Callable[[], int]") -> None:
        self.pause = 0.0  # before the next attempt; grows until an answer comes
        self.stopped = False  # on purpose: not started again before somebody asks for something
        self.trouble = ("meshd does not answer", "meshctl doctor")
        self._hear = hear
        self._waiting = waiting
        self._poll = select.poll()

    def begin(self) -> None:
        """Listen to the client, and to signals, from now on."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        on_signals(_end)
        self._poll.register(0, select.POLLIN)
        self._poll.register(1, 0)  # only whether the client has closed it

    def attempt(self) -> "socket | None":
        """A connection to the gateway, after the pause that is due; None if there is none now."""
        self._listen(self.pause)
        self.pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, self.pause * 2))
        return _connect_to(paths.gateway_socket_path()) or self._ask_daemon()

    def each(self, gateway: "socket", done: "Callable[[bytes], None]") -> None:
        """Give what comes from the gateway to `done`, a line each, until it has gone."""
        answers = b""
        self._poll.register(gateway, select.POLLIN)
        try:
            while True:
                for fd in self._readable():
                    if fd == 0:
                        self._hear()
                        continue
                    try:
                        data = gateway.recv(CHUNK)
                    except OSError:
                        data = b""
                    if not data:
                        return
                    *lines, answers = (answers + data).split(b"\n")
                    for line in lines:
                        done(line + b"\n")
        finally:
            self._poll.unregister(gateway)

    def _ask_daemon(self) -> "socket | None":
        """Have the daemon start its gateway; have it started itself if it does not run."""
        control = connect(_connect)
        if control is None and not (self.stopped and not self._waiting()):
            control = self._start_daemon()
        if control is None:
            return None
        try:
            control.sendall(b'{"jsonrpc":"2.0","id":1,"method":"mcp.open"}\n')
            answer = parsed(self._collect(control.fileno(), b"\n"))
        except OSError:
            return None
        finally:
            control.close()
        if "result" in answer:
            return _connect_to(answer["result"]["socket"])
        if "error" in answer:
            data = answer["error"]["data"]
            self.trouble = (answer["error"]["message"], data["hint"])
            self.stopped = self.stopped or data["kind"] == "stopping"
        return None

    def _start_daemon(self) -> "socket | None":
        """By a process of its own: what starting one needs would stay in our memory for the whole session."""
        if not paths.may_start():
            self.trouble = ("meshd is not running, and AGENT_MESH_NO_AUTOSTART forbids to start it", "meshctl up")
            return None
        ours, theirs = os.pipe()
        actions: list[Any] = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
        actions.append((os.POSIX_SPAWN_DUP2, theirs, 2))
        command = [sys.executable, "-P", "-m", "meshctl", "up"]
        pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsigmask=())
        os.close(theirs)
        try:
            said = self._collect(ours, b"")
        except BaseException:
            os.kill(pid, signal.SIGTERM)  # the client has gone in the meantime
            raise
        finally:
            os.close(ours)
            os.waitpid(pid, 0)
        if said:
            what, _, then = said.decode("utf-8", "replace").partition("\n")
            self.trouble = (what, then.strip().removeprefix("next: ") or "meshctl doctor")
        return connect(_connect)

    def _collect(self, fd: int, end: bytes) -> bytes:
        """What comes from there until `end`, or until it is over. The client is listened to meanwhile."""
        data = b""
        self._poll.register(fd, select.POLLIN)
        try:
            while not (end and data.endswith(end)):
                for ready in self._readable():
                    if ready == 0:
                        self._hear()
                    elif piece := os.read(fd, CHUNK):
                        data += piece
                    else:
                        return data
        finally:
            self._poll.unregister(fd)
        return data

    def _listen(self, seconds: float) -> None:
        """Listen to the client alone for so long, or until it asks for something."""
        until, waiting = time.monotonic() + seconds, self._waiting()
        while (left := until - time.monotonic()) > 0 and self._waiting() <= waiting:
            if self._readable(left):
                self._hear()

    def _readable(self, seconds: "float | None" = None) -> "list[int]":
        """What there is something to read from, after so long at most. Raises `Ended` if nobody reads from us."""
        with WAITING:
            found = [fd for fd, _ in self._poll.poll(None if seconds is None else seconds * 1000)]
        if 1 in found:
            raise Ended
        return found


def _connect_to(path: str) -> "socket | None":
    try:
        return connected(path, _connect)
    except OSError:
        return None


def _connect(connection: "socket", path: str) -> None:
    """Waits while its queue is full."""
    with WAITING:
        connection.connect(path)


def give(line: bytes) -> None:
    """To the client, whenever it reads."""
    with WAITING:
        write(1, line)


def on_signals(handler: "Any") -> None:
    for number in ENDING:
        signal.signal(number, handler)


def deaf() -> None:
    """Hear no signal any more: the interpreter's end is not to be interrupted."""
    on_signals(signal.SIG_IGN)


def _end(number: int, frame: object) -> None:
    on_signals(_nothing)  # the next one would end the end
    raise Ended


def _nothing(number: int, frame: object) -> None:
    """For a client in a hurry, which signals more than once."""
