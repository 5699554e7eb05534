"""Loopback ports that a test uses later, or more than once."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from typing import IO

# Below what systems give away by themselves, so that no other socket happens to get one between two uses, and so low
# that a Cluster's bus, 10,000 above, is below it, too.
_PORTS = range(11_000, 22_000)
_taken: list[IO[bytes]] = []  # locks, until this process ends


def free_port() -> int:
    """A port that nobody uses now, and no other test beside this one until the run has ended."""
    folder = os.path.join(tempfile.gettempdir(), f"agent-mesh-test-ports-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    while True:
        port = random.choice(_PORTS)
        lock = open(os.path.join(folder, str(port)), "wb")  # noqa: SIM115  # it is kept
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _taken.append(lock)
        return port
