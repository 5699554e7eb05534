"""Shapes of replies, checked before they are taken apart: what answers at an address may be anything.

A store answers each command in a known shape. What answers otherwise is no store, however well it speaks the
protocol, and is treated as one that is down.
"""

from __future__ import annotations

from typing import Any

from meshd.errors import StoreDown


class Garbled(StoreDown):
    """A reply that no store gives to that command. Whether the command was carried out is not known."""

    def __init__(self, reply: object, wanted: str) -> None:
        super().__init__(
            f"what answers there is not a Redis store: {_shown(reply)} instead of {wanted}", "correct redis_url"
        )


def text(reply: object, wanted: str = "a text") -> str:
    """The text of a bulk or simple string."""
    if isinstance(reply, bytes):
        try:
            return reply.decode()
        except UnicodeDecodeError:
            pass
    raise Garbled(reply, wanted)


def row(reply: object, *kinds: type, wanted: str = "a list of its values") -> list[Any]:
    """A list with one value of each kind: `bytes`, `int`, `list`, `object`, or `str` for bytes that are text."""
    if not isinstance(reply, list) or len(reply) != len(kinds):
        raise Garbled(reply, wanted)
    values: list[Any] = []
    for value, kind in zip(reply, kinds, strict=True):
        if kind is str:
            values.append(text(value, wanted))
        elif isinstance(value, kind):
            values.append(value)
        else:
            raise Garbled(reply, wanted)
    return values


def _shown(reply: object) -> str:
    """What it is, without its contents, which may be long and are nobody's business."""
    if reply is None:
        return "nothing"
    if isinstance(reply, list):
        return f"a list of {len(reply)}"
    return {int: "a number", bytes: "a text"}.get(type(reply), type(reply).__name__)
