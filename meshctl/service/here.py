"""Which service manager is here, and whether it looks after the daemon that this process would use."""

from __future__ import annotations

import os
import sys

from meshctl.service.contract import NEXT_WITHOUT, Manager, NoManager
from meshd import paths
from meshd.disk.files import holder


def find(platform: str = sys.platform) -> Manager:
    """The manager of this platform. Raises `NoManager` if we know none for it. Loads no other."""
    if platform == "darwin":
        from meshctl.service.launchd import Launchd

        return Launchd()
    if platform == "linux":
        from meshctl.service.systemd import Systemd

        return Systemd()
    raise NoManager(f"there is no service manager that agent-mesh knows on {platform}", NEXT_WITHOUT)


def enabled() -> Manager | None:
    """The manager, if the service is installed, starts at login, and serves the socket that this process uses.

    Looks at files only: every command that finds no daemon comes here.
    """
    if os.environ.get("AGENT_MESH_SOCKET"):
        return None
    try:
        manager = find()
    except NoManager:
        return None
    return manager if manager.serves() else None


def waiting() -> Manager | None:
    """The manager that starts the daemon as soon as somebody connects, while none runs. Who only looks must not."""
    if holder(paths.socket_path() + ".lock") is not None:
        return None
    try:
        service = enabled()
        return service if service is not None and service.state().pid is None else None
    except NoManager:
        return None
