"""`meshd`: arguments to settings to a running daemon, and an exit code.

0  stopped as asked, or another daemon already runs; under launchd also what starting again would not mend
1  something failed that should not have
64 wrong arguments      78 wrong configuration
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import logging
import logging.handlers
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from meshd import __version__, paths
from meshd.errors import AlreadyRunning, ConfigError, MeshError, NotReloaded, Unexpected
from meshd.service.manager import managed_by
from meshd.service.sd_notify import NEXT, Notifier, notifier
from meshd.system.limits import raise_file_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from meshd.disk.files import Lock
    from meshd.hosting.supervisor import Supervisor
    from meshd.service.status_line import StatusFacts

log = logging.getLogger("meshd")

EX_USAGE = 64
LOG_SIZE = 1 << 20
LOG_KEPT = 3
# New objects after which circles among them are looked for: Python's own 700 are a tenth of what a send costs, and
# there are few circles here.
_NEW_OBJECTS = 10_000
STATUS_EVERY = 30.0  # seconds, where there is no watchdog to set the pace


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"meshd: {message}\n")


def main() -> int:
    parser = _Parser(prog="meshd", description="The agent-mesh daemon: one per user and machine.")
    parser.add_argument("--version", action="version", version=f"meshd {__version__}")
    parser.add_argument(
        "--log-file",
        metavar="FILE",
        help="write the log there, rotated (default: standard error; under launchd, where `meshctl logs` looks)",
    )
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], help="wins over log_level")
    parser.add_argument("--ready-fd", type=int, metavar="FD", help="write one line there when it listens, or why not")
    options = parser.parse_args()
    os.umask(0o077)  # before the first file, which is the log
    tell = notifier()
    ready = _Ready(options.ready_fd, tell)
    try:
        log_file = options.log_file or (paths.daemon_log() if managed_by() == "launchd" else None)  # it has no journal
        _log_to(log_file)
        if options.log_level is not None:
            os.environ["AGENT_MESH_LOG_LEVEL"] = options.log_level  # as whoever asks for another configuration finds it
        _log_crashes(log_file)
        raise_file_limit()
        gc.set_threshold(_NEW_OBJECTS)
        asyncio.run(_serve(ready, tell))
    except KeyboardInterrupt:
        raise  # before there is a loop that takes the signal: a terminal's own end
    except MeshError as error:
        log.log(logging.INFO if isinstance(error, AlreadyRunning) else logging.ERROR, "%s", error.message)
        if options.log_file is None and options.ready_fd is None:
            sys.stderr.write(f"  next: {error.hint}\n" if error.hint else "")
        ready.failed(error)
        # launchd starts again whatever fails; it has no list of the failures that stay.
        return 0 if managed_by() == "launchd" and isinstance(error, ConfigError) else error.exit_code
    except BaseException as error:  # whatever it is: nobody reads the standard error of a daemon that is detached
        what = f"an error that nobody expected has ended meshd: {type(error).__name__}"
        log.critical("%s", what, exc_info=True)
        ready.failed(Unexpected(what, "meshctl logs"))
        return 1
    return 0


class _Ready:
    """Whoever started us: a command that waits at a pipe for `ready` or the error, or a manager, or nobody."""

    def __init__(self, fd: int | None, tell: Notifier) -> None:
        self._fd = fd
        self._tell = tell

    def _say(self, line: str) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._fd, line.encode())
            os.close(self._fd)
            self._fd = None

    def listening(self) -> None:
        self._tell.tell("READY=1")
        self._say("ready\n")

    def failed(self, error: MeshError) -> None:
        self._tell.status(f"{error.message}{NEXT}{error.hint}" if error.hint else error.message)
        already = isinstance(error, AlreadyRunning)
        self._say("ready\n" if already else f"{error.message}\n{error.hint}\n")


def _log_to(file: str | None) -> None:
    from meshd.service import journald

    handler: logging.Handler
    if file is None:
        handler = journald.handler()
    else:
        from meshd.disk.files import private_dir

        private_dir(os.path.dirname(os.path.abspath(file)))
        handler = logging.handlers.RotatingFileHandler(file, maxBytes=LOG_SIZE, backupCount=LOG_KEPT, encoding="utf-8")
        handler.setFormatter(logging.Formatter(journald.PLAIN))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _log_crashes(log_file: str | None) -> None:
    """What the interpreter would say on standard error goes where the log goes: that of threads, and of its own end.

    The manager's watchdog ends a daemon that hangs by SIGABRT: where it hung is then in the log.
    """
    threading.excepthook = _thread_failed
    if log_file is not None:
        # Open for as long as we live, beside the log's own, which is another file after it was rotated.
        faulthandler.enable(os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    elif sys.stderr is not None:
        faulthandler.enable()


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    name = failed.thread.name if failed.thread is not None else "of an unknown name"
    log.error("the thread %s failed", name, exc_info=failed.exc_value)


async def _serve(ready: _Ready, tell: Notifier) -> None:
    # Imported here: a second daemon that finds the lock taken should not pay for it.
    from meshd.control.listener import BACKLOG, Listener
    from meshd.disk.files import Lock
    from meshd.service.manager import USER, starts_again
    from meshd.service.takeover import take_over

    manager = managed_by()
    acquire = Lock.acquire if manager == USER else take_over
    listener = Listener(paths.socket_path())
    socket = listener.open(acquire)
    with contextlib.ExitStack() as held:
        held.callback(listener.close)
        held.callback(_lock_state(acquire).release)
        from meshd import settings
        from meshd.control.rpc import Server
        from meshd.hosting.supervisor import Supervisor
        from meshd.observing.background import Background

        supervisor = Supervisor(settings.load())
        asked, stopping = asyncio.Event(), asyncio.Event()
        server = Server(supervisor, asked.set, manager)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        loop.add_signal_handler(signal.SIGHUP, _reload, supervisor)
        background = Background(log)
        # Whatever ends it is logged at once: what follows takes a while, and may fail in its own way.
        running = background.start(supervisor.run(stopping), "the daemon's work")
        # The supervisor's own background: what fails of it is then among what `status` says.
        told = [supervisor.background.keep(work, name) for name, work in _tell_manager(supervisor, tell).items()]
        # asyncio listens once more, with a backlog of its own if none is given.
        control = await loop.create_unix_server(server.connection, sock=socket, backlog=BACKLOG, **_KEEP_SOCKET)
        ready.listening()
        log.info("meshd %s listens on %s", __version__, listener.path)
        try:
            end = background.start(asked.wait(), "waiting to be ended")
            await asyncio.wait([running, end], return_when=asyncio.FIRST_COMPLETED)
            for task in told:
                task.cancel()
            await asyncio.gather(*told, return_exceptions=True)
            # The manager would go on showing the last status for as long as nothing runs.
            tell.tell("STOPPING=1\nSTATUS=")
            control.close()
            if listener.adopted and manager != USER and not server.returning:
                server.returning = await starts_again()
            await server.stop()
        finally:
            stopping.set()
            await asyncio.wait([running])
            await background.end()
        log.info("meshd stopped")
        held.close()
        server.end()
        await asyncio.sleep(0)  # the loop closes them
        running.result()  # what has ended it is no end in order


def _reload(mesh: Supervisor) -> None:
    with contextlib.suppress(NotReloaded):  # it is in the log
        mesh.configuration.reload()


def _tell_manager(mesh: Supervisor, tell: Notifier) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
    """What goes on beside the work, for a manager that wants to be told how we are."""
    if not tell.wanted:
        return {}
    from meshd.service import status_line, watchdog

    def now() -> str:
        return status_line.line(_facts(mesh))

    seconds = watchdog.interval()
    told = {"the status line": lambda: status_line.show(tell, mesh.events.moved, now, seconds or STATUS_EVERY)}
    if seconds is not None:
        told["the watchdog"] = lambda: watchdog.feed(tell, seconds, mesh.stuck)
    return told


def _facts(mesh: Supervisor) -> StatusFacts:
    from meshd.service.status_line import StatusFacts

    agents, store = mesh.agents.values(), mesh.commands
    return StatusFacts(
        agents=len(agents),
        troubled=sum(a.health.trouble is not None and not a.health.of_store for a in agents) + len(mesh.names.refused),
        pending=sum(len(agent.core.ledger.entries) for agent in agents),
        unread=sum(len(agent.core.inbox.unread) for agent in agents),
        store_up=store.up.is_set(),
        store_tried=store.known.is_set(),
        server=" ".join(store.server or ()),
        store_trouble=store.trouble.message if store.trouble else "",
    )


def _lock_state(acquire: Callable[[Lock], None]) -> Lock:
    """Two daemons with two sockets must not share one state folder: they would write the same journals."""
    from meshd.disk.files import Lock, private_dir

    folder = private_dir(paths.state_dir())
    lock = Lock(os.path.join(folder, "lock"))
    try:
        acquire(lock)
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
