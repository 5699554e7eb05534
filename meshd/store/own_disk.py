"""The disk that a store of our own writes to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

NO_ROOM = "there is no room on its disk"
_SPARE, _PLENTY = 256 << 10, 1 << 30  # bytes: for what the store and we write beside messages; for whatever comes
_AMPLIFIED = 12  # three copies of a text in its log (private, group, audit), of four bytes a character at most


class OwnDisk(Protocol):
    """Where the store's log is."""

    def room(self) -> int:
        """Bytes that are free there, if that can be known."""
        ...

    def written(self) -> None:
        """The store has answered to something that it may have written down."""
        ...


def has_room(disk: OwnDisk, commands: Iterable[tuple[Any, ...]]) -> bool:
    """Whether the store can write these to its log. It would answer before it finds out that it cannot."""
    if (room := disk.room()) >= _PLENTY:
        return True
    size = sum(len(part) for command in commands for part in command if isinstance(part, str))
    return room >= _SPARE + _AMPLIFIED * size
