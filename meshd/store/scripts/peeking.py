"""The script that looks at entries without fetching them."""

from __future__ import annotations

from typing import NamedTuple

from meshd.store import replies
from meshd.store.scripts.script import Invocation, Script

LARGE = 8 << 20  # bytes of an entry: none of ours has so many


class Size(NamedTuple):
    """An entry's id, and the bytes of its fields and values."""

    id: str
    bytes: int


class _Keys(NamedTuple):
    stream: str


class _Args(NamedTuple):
    cursor: str
    most: int


def _read(reply: object) -> list[Size]:
    if not isinstance(reply, list):
        raise replies.garbled(reply, "sizes of entries")
    rows = [replies.row(entry, bytes, int, wanted="the size of an entry") for entry in reply]
    return [Size(replies.entry_id(at), size) for at, size in rows]


SIZES = Script("sizes", _Keys, _Args, _read, wrote=lambda found: False, constants={"LARGE": LARGE})


def sizes(stream: str, cursor: str, count: int) -> Invocation[list[Size]]:
    """Of up to `count` entries behind the cursor, fewer if one is very large."""
    return SIZES(_Keys(stream), _Args(cursor, count))
