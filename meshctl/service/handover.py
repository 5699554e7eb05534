"""From a daemon that was started by hand to the service: nothing is lost, and who waits for an answer gets it later."""

from __future__ import annotations

import os
from typing import Any

from meshctl import rpc
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
    connection = rpc.connect(ANSWER_TIMEOUT)
    if connection is None:
        return False
    with connection:
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
    connection = rpc.connect(ANSWER_TIMEOUT)
    if connection is None:
        return False
    with connection:
        try:
            connection.call("hello")
        except (OSError, ValueError):
            return False
    return True


def _end(answer_in: float, end_in: float, *, returning: bool, managed: bool) -> dict[str, Any] | None:
    """What the daemon said of itself before it ended; None if none listens.

    Empty if there was none to end: the socket is a manager's whose daemon does not start; or a manager runs the
    daemon, and without `managed` such a one is left alone.
    """
    connection = rpc.connect(answer_in)
    if connection is None:
        return None
    hello: dict[str, Any] = {}
    with connection:
        try:
            hello = connection.call("hello")
            if hello["managed_by"] != USER and not managed:
                return {}
            connection.call("shutdown", {"returning": returning}, seconds=end_in)
            connection.wait_end(end_in)
        except ConnectionError:
            pass  # it has ended, with something of ours unread
    return hello
