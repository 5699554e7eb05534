"""`meshctl events -f`: what a person watches, over restarts of the daemon."""

from __future__ import annotations

import time

from meshctl.client import Lost, complain, connect, converse, finish, socket
from meshctl.commands.absent import start_for
from meshd import paths
from meshd.disk.files import holder

PAUSE = 0.25  # a socket does not tell that somebody listens again; this is a person who watches


def follow(arguments: list[str], request: bytes) -> int:
    """When the daemon goes, say so, wait until there is one again, and go on. It never starts a second.

    The exit code, if it is the daemon that ends it.
    """
    connection = connect() or start_for(arguments, resumed=False)
    if isinstance(connection, int):
        return connection
    while True:
        try:
            answer = converse(connection, request)
            if not ("error" in answer and answer["error"]["data"]["kind"] == "stopping"):
                return finish(answer)
        except Lost:
            pass
        finally:
            connection.close()
        complain("meshd has gone; waiting for it to come back\n")
        connection = _next_daemon()
        complain("meshd is back\n")


def _next_daemon() -> socket:
    """A connection to the next daemon. It is waited for by its lock: the socket of a service would start one."""
    lock = paths.socket_path() + ".lock"
    while True:
        time.sleep(PAUSE)
        if holder(lock) is not None and (connection := connect()) is not None:
            return connection
