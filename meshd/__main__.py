"""`meshd`: arguments to settings to a running daemon, and an exit code.

0  stopped as asked, or another daemon already runs
1  something failed that should not have
64 wrong arguments      78 wrong configuration
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import logging.handlers
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any

from meshd import __version__, paths
from meshd.errors import AlreadyRunning, ConfigError, MeshError

if TYPE_CHECKING:
    from meshd.disk.files import Lock

log = logging.getLogger("meshd")

EX_USAGE = 64
LOG_SIZE = 1 << 20
LOG_KEPT = 3


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"meshd: {message}\n")


def main() -> int:
    parser = _Parser(prog="meshd", description="The agent-mesh daemon: one per user and machine.")
    parser.add_argument("--version", action="version", version=f"meshd {__version__}")
    parser.add_argument("--log-file", metavar="FILE", help="write the log there, rotated (default: standard error)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--ready-fd", type=int, metavar="FD", help="write one line there when it listens, or why not")
    options = parser.parse_args()
    ready = _Ready(options.ready_fd)
    try:
        _log_to(options.log_file, options.log_level)
        _raise_file_limit()
        asyncio.run(_serve(ready))
    except MeshError as error:
        log.log(logging.INFO if isinstance(error, AlreadyRunning) else logging.ERROR, "%s", error.message)
        if options.log_file is None and options.ready_fd is None:
            sys.stderr.write(f"  next: {error.hint}\n" if error.hint else "")
        ready.failed(error)
        return error.exit_code
    return 0


class _Ready:
    """The pipe to whoever started us: `ready`, or the error in one line."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def _say(self, line: str) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._fd, line.encode())
            os.close(self._fd)
            self._fd = None

    def listening(self) -> None:
        self._say("ready\n")

    def failed(self, error: MeshError) -> None:
        already = isinstance(error, AlreadyRunning)
        self._say("ready\n" if already else f"{error.message}\n{error.hint}\n")


def _log_to(file: str | None, level: str) -> None:
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler()
    else:
        from meshd.disk.files import private_dir

        private_dir(os.path.dirname(os.path.abspath(file)))
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=LOG_SIZE, backupCount=LOG_KEPT, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _raise_file_limit() -> None:
    """Each agent holds a connection and up to two files: the usual soft limit of 1024 would end at 300 agents."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(ready: _Ready) -> None:
    # Imported here: a second daemon that finds the lock taken should not pay for it.
    from meshd.control.listener import BACKLOG, Listener

    listener = Listener(paths.socket_path())
    socket = listener.open()
    with contextlib.ExitStack() as held:
        held.callback(listener.close)
        held.callback(_lock_state().release)
        from meshd import settings
        from meshd.control.rpc import Server
        from meshd.supervisor import Supervisor

        os.umask(0o077)
        supervisor = Supervisor(settings.load())
        asked, stopping = asyncio.Event(), asyncio.Event()
        server = Server(supervisor, asked.set, os.environ.get("AGENT_MESH_MANAGED_BY", "user"))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
        running = asyncio.create_task(supervisor.run(stopping), name="supervisor")
        # asyncio listens once more, with a backlog of its own if none is given.
        control = await loop.create_unix_server(server.connection, sock=socket, backlog=BACKLOG, **_KEEP_SOCKET)
        ready.listening()
        log.info("meshd %s listens on %s", __version__, listener.path)
        try:
            await asyncio.wait([running, asyncio.ensure_future(asked.wait())], return_when=asyncio.FIRST_COMPLETED)
            control.close()
            await server.stop()
        finally:
            stopping.set()
            await running
        log.info("meshd stopped")
        held.close()
        server.end()
        await asyncio.sleep(0)  # the loop closes them


def _lock_state() -> Lock:
    """Two daemons with two sockets must not share one state folder: they would write the same journals."""
    from meshd.disk.files import Lock, private_dir

    folder = private_dir(paths.state_dir())
    lock = Lock(os.path.join(folder, "lock"))
    try:
        lock.acquire()
    except AlreadyRunning as error:
        raise ConfigError(
            f"{error.message}, on another socket, with the files in {folder}",
            "use its socket (AGENT_MESH_SOCKET), or another home",
        ) from None
    return lock


# From 3.13 on asyncio would remove the socket by itself, an adopted one too.
_KEEP_SOCKET: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


if __name__ == "__main__":
    sys.exit(main())
