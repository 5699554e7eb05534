"""From a daemon that was started by hand to the service: nothing is lost, and who waits for an answer gets it later."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, BinaryIO

from meshctl.client import connect
from meshctl.service.contract import ServiceDown
from meshd import paths
from meshd.disk.files import holder
from meshd.service.manager import USER

ANSWER_TIMEOUT = 10.0  # seconds
END_TIMEOUT = 40.0


def stop_by_hand() -> int | None:
    """End the daemon that listens if no manager runs it; the pid that it had. None if there is none.

    Its clients come back, as after a crash, to the next daemon. Raises `ServiceDown` if it does not end. To be called
    while nobody else can start one (meshctl.starting.alone).
    """
    try:
        hello = _end(ANSWER_TIMEOUT, END_TIMEOUT, returning=True, managed=False)
    except (OSError, ValueError, KeyError) as error:
        pid = by_hand(None)
        raise ServiceDown(
            f"the daemon that was started by hand (pid {pid or 'unknown'}) does not answer: {error}",
            f"kill -9 {pid}, then repeat" if pid else "meshctl doctor",
        ) from None
    return int(hello["pid"]) if hello else None


def end(timeout: float, *, returning: bool = False) -> str | None:
    """Have the daemon end, and wait until it has; who ran it. None if none was there. Raises `OSError`.

    `returning`: another one follows at once, so its clients are not told that it was stopped.
    """
    try:
        hello = _end(timeout, timeout, returning=returning, managed=True)
    except (ValueError, KeyError) as error:
        raise OSError(f"what it answers is not understood: {error!r}") from None
    return None if hello is None else str(hello.get("managed_by", USER))


def listens() -> bool:
    """Whether somebody listens where the commands of this shell look. If a manager does, that starts the daemon."""
    connection: Any = connect()
    if connection is None:
        return False
    connection.close()
    return True


def by_hand(managed: int | None) -> int | None:
    """The pid of a daemon that runs here and is not the one that the manager runs, which has that pid, if any."""
    pid = holder(paths.socket_path() + ".lock")
    return None if pid == managed else pid


def other_socket() -> str:
    """What to do where the commands of this shell look elsewhere than where the service listens; else empty."""
    return "unset AGENT_MESH_SOCKET: the service has a socket of its own" if os.environ.get("AGENT_MESH_SOCKET") else ""


def answers() -> bool:
    """Whether a daemon answers there: one that is about to fail with its configuration listens for a moment, too."""
    raw: Any = connect()
    if raw is None:
        return False
    with socket.socket(fileno=raw.detach()) as connection, connection.makefile("rb") as lines:
        connection.settimeout(ANSWER_TIMEOUT)
        try:
            return _ask(connection, lines, "hello", {}) is not None
        except (OSError, ValueError, KeyError):
            return False


def _end(answer_in: float, end_in: float, *, returning: bool, managed: bool) -> dict[str, Any] | None:
    """What the daemon said of itself before it ended; None if none listens.

    Empty if there was none to end: the socket is a manager's whose daemon does not start; or a manager runs the
    daemon, and without `managed` such a one is left alone.
    """
    raw: Any = connect()
    if raw is None:
        return None
    hello: dict[str, Any] = {}
    with socket.socket(fileno=raw.detach()) as connection, connection.makefile("rb") as lines:
        connection.settimeout(answer_in)
        try:
            hello = _ask(connection, lines, "hello", {}) or {}
            if not hello or (hello["managed_by"] != USER and not managed):
                return {}
            connection.settimeout(end_in)
            _ask(connection, lines, "shutdown", {"returning": returning})
            while lines.read(1 << 16):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, with something of ours unread
    return hello


def _ask(connection: socket.socket, lines: BinaryIO, method: str, params: dict[str, Any]) -> Any:
    """The result; None if the connection ended first."""
    connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
    line = lines.readline()
    return json.loads(line)["result"] if line else None
