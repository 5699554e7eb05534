"""Whether a client has taken what it was sent, as far as TCP knows.

What was written may still lie in a buffer of this machine when the client goes. Its own machine acknowledges what
it takes; a client that closes before it has read all of that resets the connection.
"""

from __future__ import annotations

import asyncio
import os
import socket

import anyio

from meshd.system.sockets import tcp_is_well, untaken

# Seconds between two looks.
_SHORTEST, _LONGEST = 0.001, 0.25


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
        while tcp_is_well(watched):
            if untaken(watched.fileno()) == 0:
                return True
            await asyncio.sleep(pause)  # nothing tells of it
            pause = min(_LONGEST, pause * 2)
    return False
