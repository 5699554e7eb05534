"""What several checks need to know, found out once: who holds the locks, what the daemon says, the configuration."""

from __future__ import annotations

import os
import time
from typing import Any

from meshctl import rpc
from meshctl.service import here
from meshd import paths, settings
from meshd.disk.files import holder
from meshd.errors import ConfigError
from meshd.settings import Settings

ANSWER = 3.0  # seconds in which a daemon that works has answered
STARTING = 30.0  # seconds that a daemon with many agents may take to read their journals before it answers


class Facts:
    """`pid` and `state_pid` hold the socket's lock and the state folder's; `hello` and `status` are what it answers.

    `silent` is why it answers nothing: None if it does, or does not run. `waits` is the manager that starts the daemon
    when somebody connects: then nobody connects.
    """

    def __init__(self) -> None:
        self.socket = paths.socket_path()
        self.pid = holder(self.socket + ".lock")
        self.state_pid = holder(os.path.join(paths.state_dir(), "lock"))
        self.settings: Settings | None = None
        self.bad_settings: ConfigError | None = None
        self.url: str | None = None
        self.hello: dict[str, Any] | None = None
        self.status: dict[str, Any] | None = None
        self.silent: str | None = None
        self.listens = False
        self.waits: str | None = None
        try:
            self.settings = settings.load()
            self.url = self.settings.url
        except ConfigError as error:
            self.bad_settings = error
        if self.pid is not None and is_stopped(self.pid):
            self.silent = "does not answer"
        elif (service := here.waiting()) is not None:
            self.waits = service.name
        else:
            self._ask()

    def _ask(self) -> None:
        try:
            with rpc.reach(self.socket, ANSWER) as connection:
                self.listens = True
                self.hello = connection.call("hello")
                self.pid = self.pid or connection.peer()
                self.status = connection.call("status")
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            self.listens = False
        except TimeoutError:
            self.silent = f"does not answer within {ANSWER:g} s"
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.silent = f"does not answer as a daemon does ({str(error) or type(error).__name__})"

    @property
    def starting(self) -> bool:
        """Whether the daemon took its lock a moment ago."""
        try:
            return time.time() - os.stat(self.socket + ".lock").st_mtime < STARTING
        except OSError:
            return False

    @property
    def managed_by(self) -> str:
        return str((self.hello or {}).get("managed_by") or (_managed_by(self.pid) if self.pid else "user"))


def _managed_by(pid: int) -> str:
    """What a daemon that cannot be asked was started by: its environment says so."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return "user"
    return next((v.partition(b"=")[2].decode() for v in variables if v.startswith(b"AGENT_MESH_MANAGED_BY=")), "user")


def is_stopped(pid: int) -> bool:
    """Whether the process is there and was stopped by a signal, so that it does nothing until another one comes."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False


def sockets_of(pid: int) -> list[str]:
    """The paths of the Unix sockets on which the process listens, as far as /proc tells."""
    inodes = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
            except OSError:
                continue
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
            # Num RefCount Protocol Flags Type St Inode Path; the path may hold spaces. Flag 00010000: it listens.
            words = [line.rstrip("\n").split(None, 7) for line in file]
    except OSError:
        return []
    return [w[7] for w in words if len(w) == 8 and w[3] == "00010000" and f"socket:[{w[6]}]" in inodes]


def listener_of(path: str) -> int | None:
    """The pid of who listens on the Unix socket, as far as /proc tells: of our own processes, or to root."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return None
    return next((pid for pid in pids if path in sockets_of(pid)), None)
