"""`python -m meshd.mcp`: the gateway. Started by the daemon; says `ready` when it listens, and ends with the daemon."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import sys

from meshd.mcp.daemon_client import LIMIT
from meshd.mcp.gateway import Gateway
from meshd.observing.background import Background
from meshd.system.sockets import peer_uid

log = logging.getLogger("meshd.mcp")

END_TIMEOUT = 2.0  # seconds


async def _serve(options: argparse.Namespace) -> None:
    gateway = Gateway(options.control)
    sessions = Background(log)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if peer_uid(writer.get_extra_info("socket")) not in (None, 0, os.geteuid()):
            writer.close()
            return
        sessions.start(gateway.serve(reader, writer), "a session")

    with contextlib.suppress(FileNotFoundError):
        os.unlink(options.socket)
    os.umask(0o177)
    listening = await asyncio.start_unix_server(accept, options.socket, limit=LIMIT, backlog=512)
    # What the imports made stays for ever: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    # Standard input is a pipe from the daemon, which never writes: it ends when the daemon does, however that ends.
    ended = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ended), sys.stdin)
    await ended.read()
    listening.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_TIMEOUT):
            await sessions.join()  # each ends with its connection to the daemon, whose last words it passes on first
    os._exit(0)  # whoever is connected sees the end; there is nothing to save


def main() -> None:
    parser = argparse.ArgumentParser(prog="meshd.mcp")
    parser.add_argument("--socket", required=True)
    parser.add_argument("--control", required=True)
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
