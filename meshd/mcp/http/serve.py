"""The process: from a listening socket to its end on SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from socket import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from meshd import paths
from meshd.mcp.http.address import Address
from meshd.mcp.http.app import Application
from meshd.mcp.http.response import ENDS, TRANSPORT
from meshd.observing.background import Background
from meshd.system.limits import raise_file_limit

# Seconds: a connection that has asked nothing yet, one that may ask again; at the end, answers to those who wait for
# one, and then whatever is still open.
FIRST_REQUEST = 30.0
KEEP_ALIVE = 75
ANSWERING = 5.0
GRACE = 1


def run(address: Address) -> int:
    """Serve until SIGINT or SIGTERM. Says where on standard output, and what goes wrong on standard error."""
    _log_trouble()
    raise_file_limit()
    asyncio.run(_serve(address))
    return 0


async def _serve(address: Address) -> None:
    application = Application(paths.socket_path(), address)
    config = uvicorn.Config(
        application.asgi,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    await _Server(config, application, address).serve([address.socket])


class _Server(uvicorn.Server):
    """Says where it serves once it does, and ends with code 0 when it was asked to end."""

    def __init__(self, config: uvicorn.Config, application: Application, address: Address) -> None:
        super().__init__(config)
        self._application = application
        self._address = address
        self._background = Background(logging.getLogger("meshd.mcp"))
        self._asked_to_end = False

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write(f"MCP on {self._address.url}/mcp\n")
        sys.stdout.flush()

    def _begin_to_end(self) -> None:
        if not self._asked_to_end:
            self._asked_to_end = True
            self._background.start(self._end(), "the end")

    async def _end(self) -> None:
        """First those who wait are answered: the SDK's streams are cut off once `should_exit` is seen."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWERING):
                    await self._application.interrupt()
        finally:
            self.should_exit = True

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        # Who is still connected after the grace is cut off, on purpose.
        logging.getLogger("uvicorn.error").setLevel("CRITICAL")
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # of calls that were cancelled
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would raise the signal again at the end, and the exit code would be the signal's.
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._begin_to_end)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


class _Protocol(H11Protocol):
    """uvicorn's connection, which hands every byte to the kernel before it takes the next one.

    Then a response that was sent is known to have left: what is in the connection's buffer dies with the process,
    or with the client, and nobody would know.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        self.app_state = {**self.app_state, TRANSPORT: transport}
        self.loop.call_later(FIRST_REQUEST, self._idle)

    def _idle(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def _log_trouble() -> None:
    """Log what is our trouble. What strangers send is answered only: a line for each would fill the disk."""
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: not _is_end(record.exc_info[1] if record.exc_info else None))
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s", handlers=[handler])
    logging.getLogger("uvicorn.error").setLevel("ERROR")
    logging.getLogger("mcp").setLevel("ERROR")
    logging.getLogger("mcp.server.sse").setLevel("CRITICAL")  # an error with a traceback for what is not JSON


def _is_end(error: BaseException | None) -> bool:
    """Whether this is only how the SDK notices, in the middle of a request, that its session or client has gone."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_end, error.exceptions))
    return isinstance(error, ENDS)
