"""What the store refused, counted by kind: a refusal that only some meet is seen by nobody else."""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.core.clock import Wall
from meshd.errors import MeshError

RECENT = 60.0  # seconds for which a refusal counts as something that is wrong now


class Counted(msgspec.Struct, gc=False):
    """So many of one kind. `last`: the latest one's sentence, at a wall time. `some`: not everybody meets that one."""

    count: int
    last: str
    at: Wall
    some: bool


class Refusals:
    """Counts since the daemon's start, by the errors' kinds, of which there are a few."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Counted] = {}

    def add(self, error: MeshError, now: Wall, *, some: bool) -> None:
        """`some`: what everybody meets is known by other signs, which also tell when it is over."""
        before = self._by_kind.get(error.kind)
        self._by_kind[error.kind] = Counted((before.count if before else 0) + 1, error.message, now, some)

    def summary(self, now: Wall) -> dict[str, Any]:
        """By kind, as `status` has it. `recent`: only some met the last one, less than `RECENT` seconds ago."""
        return {
            kind: {"count": of.count, "last": of.last, "at": of.at, "recent": of.some and abs(now - of.at) < RECENT}
            for kind, of in self._by_kind.items()
        }
