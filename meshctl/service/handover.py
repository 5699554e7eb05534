"""From a daemon that was started by hand to the service: nothing is lost, and who waits for an answer gets it later."""

from __future__ import annotations

import json
import socket
from typing import Any

from meshctl.client import connect
from meshctl.service.manager import NotRunning
from meshd import paths
from meshd.service.manager import USER

ANSWER_TIMEOUT = 10.0  # seconds
END_TIMEOUT = 40.0


def stop_by_hand() -> int | None:
    """End the daemon that listens if no manager runs it; the pid that it had. None if there is none.

    Its clients come back, as after a crash, to the next daemon. Raises `NotRunning` if it does not end. To be called
    while nobody else can start one (meshctl.autostart.alone).
    """
    connection = _connect()
    if connection is None:
        return None
    with connection:
        connection.settimeout(ANSWER_TIMEOUT)
        lines = connection.makefile("rb")
        try:
            hello = _ask(connection, lines, "hello", {})
            if hello is None or hello["managed_by"] != USER:
                return None
            connection.settimeout(END_TIMEOUT)
            _ask(connection, lines, "shutdown", {"returning": True})
            while lines.read(1 << 16):
                pass
        except (OSError, ValueError, KeyError) as error:
            pid = _pid()
            raise NotRunning(
                f"the daemon that was started by hand (pid {pid}) does not answer: {error}",
                f"kill -9 {pid}, then repeat",
            ) from None
        finally:
            lines.close()
    return int(hello["pid"])


def end(timeout: float, *, returning: bool = False) -> str | None:
    """Have the daemon end, and wait until it has; who ran it. None if none was there. Raises `OSError`.

    `returning`: another one follows at once, so its clients are not told that it was stopped.
    """
    connection = _connect()
    if connection is None:
        return None
    with connection:
        connection.settimeout(timeout)
        lines = connection.makefile("rb")
        with lines:
            try:
                hello = _ask(connection, lines, "hello", {})
                _ask(connection, lines, "shutdown", {"returning": returning})
                while lines.read(1 << 16):
                    pass
            except ConnectionResetError:
                pass  # it has ended, with something of ours unread
    return str(hello["managed_by"]) if hello else USER


def _connect() -> socket.socket | None:
    raw: Any = connect()
    return None if raw is None else socket.socket(fileno=raw.detach())


def _ask(connection: socket.socket, lines: Any, method: str, params: dict[str, Any]) -> Any:
    """The result; None if the connection ended first: it was the socket of a manager whose daemon does not start."""
    try:
        connection.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
        line = lines.readline()
    except (BrokenPipeError, ConnectionResetError):
        return None
    return json.loads(line)["result"] if line else None


def _pid() -> str:
    """As it wrote it into its lock."""
    try:
        with open(paths.socket_path() + ".lock", encoding="ascii") as file:
            return str(int(file.read()))
    except (OSError, ValueError):
        return "unknown"
