"""The daemon from outside: what it says of its sessions, its processes, and how to end them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.helper import Home, wait_until
from tests.helper.processes import alive


def sessions_of(home: Home, name: str) -> int:
    """How many live sessions and waiting calls the name has."""
    counts: dict[str, int] = {agent["name"]: agent["sessions"] for agent in home.json("status")["agents"]}
    return counts.get(name, 0)


def waiting(home: Home, name: str) -> int:
    """How many listening calls wait for the name's mail, beside its live session."""
    return sessions_of(home, name) - 1


def daemon_pid(home: Home) -> int:
    """The daemon's pid, from its lock, which is empty for a moment while it is taken, and names one that has gone."""

    def find() -> int | None:
        pid = int(Path(home.socket + ".lock").read_text() or 0)
        return pid if alive(pid) else None

    return int(wait_until(find, "the lock names its holder"))


def children(pid: int) -> dict[int, str]:
    """The child processes of a process, with their command lines."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
    return found


def gateway_pid(home: Home) -> int:
    """The pid of the gateway that the daemon runs."""

    def find() -> int | None:
        return next((pid for pid, line in children(daemon_pid(home)).items() if "meshd.mcp" in line), None)

    return int(wait_until(find, "the daemon has a gateway"))


def kill(pid: int) -> None:
    """kill -9, and wait until it is over."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), f"{pid} is gone")


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[int]:
    """SIGSTOP for as long as this lasts; it may be killed meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def kill_daemon(home: Home) -> None:
    """kill -9 of whatever daemon runs now."""
    pid = daemon_pid(home)
    kill(pid)
    if home.daemon is not None and home.daemon.pid == pid:
        home.daemon.wait()


def stop_daemon(home: Home) -> None:
    home.meshctl("down")


def kill_gateway(home: Home) -> None:
    kill(gateway_pid(home))
