"""The manager that runs this daemon, if one does, and what it is about to do with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping

log = logging.getLogger("meshd.service")

UNIT = "meshd.service"
USER = "user"  # somebody started it by hand, or a command did
MANAGERS = ("systemd", "launchd")
_ASK_TIMEOUT = 2.0


def managed_by(environ: Mapping[str, str] = os.environ) -> str:
    """`systemd`, `launchd` or `user`. The unit says so: what a manager sets otherwise, its children inherit."""
    named = environ.get("AGENT_MESH_MANAGED_BY", USER)
    return named if named in MANAGERS else USER


async def starts_again() -> bool:
    """Whether systemd, which has just told us to end, will start us again at once: this is a restart.

    Then whoever waits for an answer need not be told that the daemon has gone: its socket stays, and the next
    daemon answers. False if it cannot be asked.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *("systemctl", "--user", "list-jobs", "--plain", "--no-legend", "--no-pager", UNIT),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        log.info("systemctl cannot be asked whether this is a restart: %s", error)
        return False
    try:
        async with asyncio.timeout(_ASK_TIMEOUT):
            said, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return False
    # 17 meshd.service restart running
    return any(line.split()[1:3] == [UNIT, "restart"] for line in said.decode("utf-8", "replace").splitlines())
