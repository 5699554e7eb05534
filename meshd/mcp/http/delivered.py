"""Whether a client has taken what it was sent, as far as TCP knows.

What was written may still lie in a buffer of this machine when the client goes. Its own machine acknowledges what
it takes; a client that closes before it has read all of that resets the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios

import anyio

# Seconds between two looks.
_SHORTEST, _LONGEST = 0.001, 0.25
# tcp_states.h: both ends are open, or the client has closed its own in order.
_WELL = (1, 8)


async def acknowledged(transport: asyncio.Transport) -> bool:
    """Wait until all that was written is taken; False if the client went before that.

    Waits for as long as the client lives, and goes on while the request is cancelled because the client closed: it
    may have closed after it had read all. Where the kernel does not tell, what was written counts as taken.
    """
    try:
        # Of our own: the loop closes the connection's as soon as the client closes.
        watched = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    except OSError:
        return False
    pause = _SHORTEST
    with watched, anyio.CancelScope(shield=True):
        while _is_well(watched):
            if _outstanding(watched) == 0:
                return True
            await asyncio.sleep(pause)  # nothing tells of it
            pause = min(_LONGEST, pause * 2)
    return False


def _is_well(connection: socket.socket) -> bool:
    if sys.platform != "linux":
        return True
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _WELL


def _outstanding(connection: socket.socket) -> int:
    """Bytes that the client's machine has not acknowledged (SIOCOUTQ, tcp(7))."""
    if sys.platform != "linux":
        return 0
    with contextlib.suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
    return 0
