"""The script that tells who is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshd.core.names import Keys, is_name
from meshd.store import replies
from meshd.store.scripts.script import Invocation, Script

NAMES = 10_000  # names of the index that are looked at
_ENTRY = 16 << 10  # bytes of a registry entry; ours have some hundred


class Present(NamedTuple):
    """`expires`: until when each name of the index is held, wall seconds.

    `entries`: the registry entry of each name that was asked for, JSON as somebody wrote it and its first
    bytes only if it is very long; or empty.
    """

    expires: dict[str, float]
    entries: list[bytes]


class _Keys(NamedTuple):
    presence: str


class _Args(NamedTuple):
    floor: str


def _read(reply: object) -> Present:
    index, entries = replies.row(reply, list, list)
    if len(index) % 2 or not all(isinstance(part, bytes) for part in [*index, *entries]):
        raise replies.garbled(reply, "who is there")
    expires = {}
    for name, score in zip(index[::2], index[1::2], strict=True):
        try:
            found = name.decode(), float(score)
        except ValueError:
            continue  # anybody may write into the index
        if is_name(found[0]):
            expires[found[0]] = found[1]
    return Present(expires, entries)


WHO = Script(
    "who", _Keys, _Args, _read, wrote=lambda present: False, constants={"NAMES": NAMES, "ENTRY": _ENTRY}, writes=False
)


def who(keys: Keys, *, floor: float, names: Sequence[str]) -> Invocation[Present]:
    """Names that were held at `floor`, wall seconds, or since, and the registry entries of `names`, '' for none.

    Whoever asks again knows most of the names from the last time, and so has all in one round trip; a name of the
    index that is new to it is asked for once more.
    """
    return WHO(_Keys(keys.presence) + tuple(map(keys.registry, names)), _Args(f"{floor:.3f}"))
