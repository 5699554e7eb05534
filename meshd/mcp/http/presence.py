"""Whether the client of a session is still there.

A session of Streamable HTTP is no connection: a client that ends seldom says so, and its session lives on until it
has been idle for half an hour. But most clients keep one stream open for notifications, which ends with them. The
agent of such a client is no live session any more, and its name is free; a client that comes back is one again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from meshd.mcp.http.daemon_connection import Line
from meshd.observing.background import Background

log = logging.getLogger("meshd.mcp")

# Seconds without the stream, and without a request: it may be reconnecting.
ABSENCE = 10.0


class _Client:
    def __init__(self, line: Line) -> None:
        self.line = line
        self.requests = 0
        self.streamed = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def absent(self) -> bool:
        return self.streamed and not self.requests


class Attendance:
    """The clients of all sessions, by the sessions' ids."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        self._background = Background(log)

    def begin(self, session_id: str, line: Line) -> None:
        self._clients[session_id] = _Client(line)

    def end(self, session_id: str) -> None:
        client = self._clients.pop(session_id, None)
        if client is not None and client.timer is not None:
            client.timer.cancel()

    @contextlib.contextmanager
    def request(self, session_id: str, *, stream: bool) -> Iterator[None]:
        """The client asks something for as long as this lasts, or listens to its stream."""
        client = self._clients.get(session_id)
        if client is None:
            yield
            return
        client.requests += 1
        client.streamed = client.streamed or stream
        if client.timer is not None:
            client.timer.cancel()
            client.timer = None
        try:
            yield
        finally:
            client.requests -= 1
            if client.absent and self._clients.get(session_id) is client:
                client.timer = asyncio.get_running_loop().call_later(ABSENCE, self._leave, client)

    def _leave(self, client: _Client) -> None:
        self._background.start(client.line.close(), "giving up the name of a client that has gone")

    async def free(self, name: str) -> None:
        """Somebody comes by this name: whoever goes by it and is not there gives it up at once."""
        for client in list(self._clients.values()):
            if client.line.name == name and client.absent:
                await client.line.close()

    async def close(self) -> None:
        for session_id in list(self._clients):
            self.end(session_id)
        await self._background.join()
