"""The names of requests that stand alone: all requests of one name share a line while there are any."""

from __future__ import annotations

import asyncio
import logging

from meshd.mcp.http.daemon_connection import Daemon, Line
from meshd.mcp.http.response import Exchange
from meshd.observing.background import Background

log = logging.getLogger("meshd.mcp")

# Seconds that a name stays a live session after its last request.
LINGER = 10.0


class _Shared:
    def __init__(self, line: Line) -> None:
        self.line = line
        self.users = 0
        self.timer: asyncio.TimerHandle | None = None


class AgentLines:
    """A line for each name in use, and one for requests that give none."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._shared: dict[str | None, _Shared] = {}
        self._background = Background(log)

    def line(self, name: str | None, exchange: Exchange) -> Line:
        """The line of this name, kept at least until the exchange ends: mail in its response hangs on it."""
        shared = self._shared.get(name)
        if shared is None:
            shared = self._shared[name] = _Shared(Line(self._daemon, name, strict=True))
        shared.users += 1
        if shared.timer is not None:
            shared.timer.cancel()
            shared.timer = None
        exchange.at_end(lambda: self._release(name, shared))
        return shared.line

    def _release(self, name: str | None, shared: _Shared) -> None:
        shared.users -= 1
        if not shared.users:
            shared.timer = asyncio.get_running_loop().call_later(LINGER, self._expire, name, shared)

    def _expire(self, name: str | None, shared: _Shared) -> None:
        self._background.start(self._end(name, shared), f"giving up the name {name}")

    async def _end(self, name: str | None, shared: _Shared) -> None:
        await shared.line.close()
        # A request that came meanwhile opens the same line again: to the daemon that is the same session.
        if not shared.users and self._shared.get(name) is shared:
            del self._shared[name]

    async def close(self) -> None:
        for shared in list(self._shared.values()):
            if shared.timer is not None:
                shared.timer.cancel()
            await shared.line.close()
        await self._background.join()
