"""The control socket itself: one daemon, one path, nobody else.

The lock comes first and the path second, because a bind takes a live daemon's path over without a word. With
the lock held, whatever stands at the path is what a killed daemon left.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable

from meshd.disk.files import Lock, private_dir
from meshd.errors import ConfigError

BACKLOG = 512
_SYSTEMD_FIRST_FD = 3


class Listener:
    """Owns the lock and the listening socket. `adopted`: systemd made the socket and keeps it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.adopted = False
        self.socket: socket.socket | None = None
        self._made: os.stat_result | None = None  # what our own bind put at the path
        self._lock = Lock(path + ".lock")

    def open(self, acquire: Callable[[Lock], None] = Lock.acquire) -> socket.socket:
        """Lock and listen. Raises `AlreadyRunning`, or `ConfigError` with the path and the reason."""
        private_dir(os.path.dirname(self.path))
        acquire(self._lock)
        self.socket = self._adopt() or self._bind()
        self.socket.setblocking(False)
        return self.socket

    def _adopt(self) -> socket.socket | None:
        """The socket that systemd passed, if it passed one to this process (sd_listen_fds(3))."""
        if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS", "0") == "0":
            return None
        for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(variable, None)
        os.set_inheritable(_SYSTEMD_FIRST_FD, False)
        found = socket.socket(fileno=_SYSTEMD_FIRST_FD)
        if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM:
            raise ConfigError("the socket that systemd passed is not a Unix stream socket", "see meshd.socket")
        self.adopted = True
        self.path = os.fsdecode(found.getsockname())
        return found

    def _bind(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise ConfigError(f"{self.path} is there and is not a socket", f"move it away: {self.path}")
            os.unlink(self.path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        umask = os.umask(0o177)
        try:
            made.bind(self.path)
        except OSError as error:
            made.close()
            raise ConfigError(f"cannot listen on {self.path}: {error.strerror}", "set AGENT_MESH_SOCKET") from None
        finally:
            os.umask(umask)
        self._made = os.lstat(self.path)
        made.listen(BACKLOG)
        return made

    def close(self) -> None:
        """Remove the socket that we made, and let the lock go: in this order.

        One that systemd made stays, also where it took the path over from us while we ran.
        """
        if self._made is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(self.path), self._made):
                    os.unlink(self.path)
            self._made = None
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        self._lock.release()
