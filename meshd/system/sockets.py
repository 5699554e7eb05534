"""The other end of a connected socket, as far as the kernel knows: who it is, whether it is still there, and how
much of what it was sent it has not taken yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import sys
import termios

_NO_BYTES = b"\0" * struct.calcsize("i")
# tcp_states.h: TCP_ESTABLISHED, and TCP_CLOSE_WAIT, in which the other end has closed its own half in order.
_TCP_WELL = (1, 8)


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


def untaken(fd: int) -> int:
    """Bytes that were sent and that the other end has not taken yet; 0 where the kernel does not tell.

    A Unix socket: what the peer has not read (SIOCOUTQ, unix(7)). TCP: what its machine has not acknowledged (tcp(7)).
    """
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, _NO_BYTES))[0])
    return 0


def tcp_is_well(connection: socket.socket) -> bool:
    """Whether a TCP connection was neither reset nor lost; True where the kernel does not tell (TCP_INFO, tcp(7))."""
    if sys.platform != "linux":
        return True
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _TCP_WELL
