"""What a daemon and a store hold: descriptors, memory, clients, and keys that never go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.helper import Home, Store

_FDS = 40  # more than before, of which clients and readers that come and go are a part
_MEMORY = 200 << 20  # bytes more than before: what is unread is held in memory
# Keys that may stay: streams, which are bounded, and the index of who is present.
_ENDLESS = re.compile(r"mesh:(to_[A-Za-z0-9_-]+|group|all|gate:audit|presence)|\{mesh\}:.*")


class Footprint(NamedTuple):
    """Of one daemon: open descriptors, and resident memory in bytes."""

    fds: int
    memory: int

    def leaks(self, before: Footprint) -> list[str]:
        found = []
        if self.fds > before.fds + _FDS:
            found.append(f"{self.fds} descriptors are open, {before.fds} were before")
        if self.memory > before.memory + _MEMORY:
            found.append(f"{self.memory >> 20} MiB are resident, {before.memory >> 20} were before")
        return found


def footprint(home: Home) -> Footprint:
    assert home.daemon is not None
    return Footprint(len(list(Path(f"/proc/{home.daemon.pid}/fd").iterdir())), _memory(home, "VmRSS"))


def peak(home: Home) -> int:
    """The most that the daemon ever had in memory, in bytes."""
    return _memory(home, "VmHWM")


def _memory(home: Home, line: str) -> int:
    assert home.daemon is not None
    found = re.search(rf"{line}:\s+(\d+) kB", Path(f"/proc/{home.daemon.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def endless_keys(store: Store) -> list[str]:
    """What is wrong with the store's keys."""
    with store.client() as client:
        keys = [key.decode() for key in client.scan_iter(count=10_000)]
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.ttl(key)
        lives = pipeline.execute()
    endless = [key for key, left in zip(keys, lives, strict=True) if left == -1 and not _ENDLESS.fullmatch(key)]
    return [f"{len(endless)} keys never expire: {', '.join(endless[:3])}"] if endless else []


def clients_of(store: Store) -> int:
    """How many connections the store has."""
    with store.client() as client:
        return len(client.client_list())
