"""Starting the daemon: by its service if there is one, else detached from the terminal; and only one at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from meshctl.client import complain, connect, socket
from meshd import paths
from meshd.disk.files import private_dir
from meshd.errors import ConfigError, DaemonDown, MeshError

ENDING = 20.0  # seconds that a daemon which is being stopped may take
# What the manager of another service tells its own program. A daemon that believed it would speak in its name.
_NOT_OURS = ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "JOURNAL_STREAM", "AGENT_MESH_MANAGED_BY")

_PATHS: dict[str, Callable[[str], str]] = {"AGENT_MESH_SOCKET": str, "AGENT_MESH_REDIS_URL_FILE": os.path.expanduser}


class NotStarted(DaemonDown):
    """It does not listen, and why."""


def start() -> socket:
    """A connection to the daemon, which is started if none listens. Raises `NotStarted` with its own words."""
    log_file = paths.daemon_log()
    with alone():
        connection = connect() or _by_service()
        until = time.monotonic() + ENDING
        while connection is None and time.monotonic() < until:
            _spawn(log_file)
            connection = connect()
            if connection is None:
                # Another daemon holds the lock and does not listen: it is ending, or just beginning.
                time.sleep(0.05)
    if connection is None:
        raise NotStarted("meshd was started and does not listen", f"see {log_file}, or run: meshctl doctor")
    return connection


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Nobody else starts the daemon meanwhile: the second of two callers waits for the first one's daemon.

    The lock ends with the process. Raises `NotStarted` if its folder cannot be made.
    """
    path = paths.socket_path()
    try:
        private_dir(os.path.dirname(path))
        private_dir(os.path.dirname(paths.daemon_log()))
        fd = os.open(path + ".start", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (ConfigError, OSError) as error:
        hint = error.hint if isinstance(error, ConfigError) else "meshctl doctor"
        raise NotStarted(f"meshd was not started: {error}", hint) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _by_service() -> socket | None:
    """A connection to the daemon as the installed service has started it; None if there is none, or it failed."""
    from meshctl.service import here

    service = here.enabled()
    if service is None:
        return None
    try:
        service.start()
        return connect()
    except MeshError as error:
        why = f"{error.message}\n  next: {error.hint}"
        complain(f"the service did not start, so meshd is started without it: {why}\n")
        # Its manager would try again, and take the socket's path from the daemon that is started now.
        with contextlib.suppress(MeshError):
            service.stop()
        return None


def _spawn(log_file: str) -> None:
    """Run `meshd` in a session of its own, and wait until it listens or has said why not."""
    ours, theirs = os.pipe()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_OURS)}
    for variable in filter(environment.get, _PATHS):  # what is relative is so to our folder, not to the daemon's
        environment[variable] = os.path.abspath(_PATHS[variable](environment[variable]))
    try:
        # -P: a folder named meshd where the user happens to stand is not the daemon.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "meshd", "--log-file", log_file, "--ready-fd", str(theirs)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            pass_fds=[theirs],
            start_new_session=True,
        )
    except OSError as error:
        os.close(ours)
        raise NotStarted(f"cannot run {sys.executable}: {error.strerror}", "meshctl doctor") from None
    finally:
        os.close(theirs)
    with os.fdopen(ours, encoding="utf-8", errors="replace") as pipe:
        said = pipe.read().splitlines()
    if said[:1] == ["ready"]:
        child.returncode = 0  # it lives on without us: no warning about an unreaped child
        return
    code = child.wait()
    why = said[0] if said else f"it ended with code {code}; see {log_file}"
    raise NotStarted(f"meshd was not started: {why}", said[1] if len(said) > 1 and said[1] else "meshctl doctor")
