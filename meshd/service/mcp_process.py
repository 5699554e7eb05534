"""The process that serves MCP sessions, seen from the daemon: started when the first session comes.

It is a process of its own because the MCP SDK costs a second of imports and more memory than everything else
together: a daemon that nobody speaks MCP with pays nothing, and messages never wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys

from meshd import paths
from meshd.core.backoff import Backoff
from meshd.errors import ConfigError
from meshd.observing.background import Background
from meshd.observing.outage import Outage
from meshd.system.clock import mono

log = logging.getLogger("meshd.mcp")

START_TIMEOUT = 30.0
END_TIMEOUT = 3.0  # for passing on the daemon's last words
STEADY = 60.0  # seconds after which its end is a new trouble, and not the last one again


class GatewayProcess:
    """Keeps one gateway process alive from the first `open` on, and in later runs of this daemon from the start."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.restarts = 0
        self._marker = os.path.join(paths.state_dir(), "mcp")
        self._wanted = asyncio.Event()
        self._ready = asyncio.Event()
        self._trouble = ""
        self._outage = Outage(log, logging.ERROR)
        self._background = Background(log)

    @property
    def trouble(self) -> str | None:
        """Why no session is served now, although one was."""
        return self._trouble or None if self._wanted.is_set() and not self._ready.is_set() else None

    async def open(self) -> str:
        """The path of the gateway's socket, once it listens. Raises `ConfigError` if it cannot be started."""
        self._wanted.set()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._ready.wait()
        except TimeoutError:
            self._trouble = self._trouble or f"it does not listen after {START_TIMEOUT:g} s"
            raise ConfigError(f"the MCP gateway was not started: {self._trouble}", "meshctl logs") from None
        return paths.gateway_socket_path()

    async def run(self) -> None:
        """The restart wrapper: until cancelled, and not before somebody wants it."""
        if self._was_used():
            self._wanted.set()
        await self._wanted.wait()
        self._mark_used()
        backoff = Backoff(base=0.2, cap=10.0)
        while True:
            started = mono()
            try:
                await self._serve()
            except OSError as error:
                self._trouble = str(error)
                self._outage.begin(f"MCP gateway: {error}")
            except Exception as error:
                self._trouble = f"it cannot be kept alive ({type(error).__name__}); see the log"
                self._outage.begin(f"MCP gateway: {self._trouble}", exc_info=True)
            self.restarts += 1
            if mono() - started > STEADY:
                backoff.reset()
            await asyncio.sleep(backoff.next())

    def _was_used(self) -> bool:
        return os.path.exists(self._marker)

    def _mark_used(self) -> None:
        with contextlib.suppress(OSError), open(self._marker, "w"):
            pass

    async def _serve(self) -> None:
        """One process, from its start to its end. Its standard input ends with us, and it with that."""
        # -P: a folder named mcp where the daemon happens to stand is not the SDK.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "meshd.mcp"),
            *("--socket", paths.gateway_socket_path(), "--control", paths.socket_path()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid = process.pid
        said = self._background.start(self._pass_on(process.stderr), "MCP gateway: log")
        try:
            if await process.stdout.readline() == b"ready\n":
                self._ready.set()
                self._outage.end("MCP gateway: it listens again")
            code = await process.wait()
            self._trouble = f"it ended with code {code}"
            self._outage.begin(f"MCP gateway: {self._trouble}")
        finally:
            self._ready.clear()
            self.pid = None
            assert process.stdin is not None
            process.stdin.close()
            try:
                async with asyncio.timeout(END_TIMEOUT):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            await asyncio.wait([said])

    async def _pass_on(self, stderr: asyncio.StreamReader) -> None:
        """What it says goes into the daemon's log."""
        while True:
            try:
                line = await stderr.readline()
            except ValueError:  # a line beyond all measure: what was read of it is gone, and the rest is read on
                continue
            if not line:
                return
            log.info("%s", line.decode("utf-8", "replace").rstrip())
