"""The other end of a connected Unix socket: who it is, and whether it is still there."""

from __future__ import annotations

import os
import select
import socket
import struct
import sys


def peer_uid(connected: socket.socket) -> int | None:
    """The user at the other end, or None where the platform does not tell.

    Linux: SO_PEERCRED, struct ucred. macOS: LOCAL_PEERCRED, struct xucred (version, uid, …).
    """
    if sys.platform == "linux":
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", raw)[1])
    if sys.platform == "darwin":
        raw = connected.getsockopt(0, 0x001, 76)
        return int(struct.unpack_from("II", raw)[1])
    return None


def has_gone(fd: int) -> bool:
    """Whether the other end of a Unix socket is closed in both directions, which an end of file alone doesn't tell."""
    if sys.platform == "linux":
        poll = select.poll()
        poll.register(fd, 0)
        return any(happened & (select.POLLHUP | select.POLLERR) for _, happened in poll.poll(0))
    try:
        with socket.socket(fileno=os.dup(fd)) as copy:
            copy.getpeername()  # fails there once the peer has closed
    except OSError:
        return True
    return False
