"""Shapes of replies, checked before they are taken apart: what answers at an address may be anything.

A store answers each command in a known shape. What answers otherwise is no store, however well it speaks the
protocol, and is treated as one that is down.
"""

from __future__ import annotations

import re
from typing import Any

from meshd.errors import StoreDown

RawEntries = list[tuple[bytes, list[bytes] | None]]


class Garbled(StoreDown):
    """A reply that no store gives to that command. Whether the command was carried out is not known."""


def garbled(reply: object, wanted: str) -> Garbled:
    """The error of a reply that is not `wanted`."""
    return Garbled(f"what answers there is not a Redis store: {_shown(reply)} instead of {wanted}", "correct redis_url")


def text(reply: object, wanted: str = "a text") -> str:
    """The text of a bulk or simple string."""
    if isinstance(reply, bytes):
        try:
            return reply.decode()
        except UnicodeDecodeError:
            pass
    raise garbled(reply, wanted)


def value(reply: object) -> bytes | None:
    """What GET gives: a value, or None."""
    if reply is not None and not isinstance(reply, bytes):
        raise garbled(reply, "a value")
    return reply


def number(reply: object) -> int:
    """An integer, as EXISTS gives it."""
    if not isinstance(reply, int):
        raise garbled(reply, "a number")
    return reply


def clock(reply: object) -> float:
    """TIME: wall seconds."""
    parts = row(reply, str, str, wanted="the time")
    if not all(re.fullmatch("[0-9]{1,15}", part) for part in parts):
        raise garbled(reply, "the time")
    return int(parts[0]) + int(parts[1]) / 1e6


def scanned(reply: object) -> tuple[int, list[bytes]]:
    """SCAN: where to go on, 0 at the end, and keys."""
    cursor, keys = row(reply, str, list, wanted="some of the keys")
    if not re.fullmatch("[0-9]{1,20}", cursor) or not set(map(type, keys)) <= {bytes}:
        raise garbled(reply, "some of the keys")
    return int(cursor), keys


def facts(reply: object) -> dict[str, str]:
    """What INFO tells, by name. Paths are among it, which may be no text."""
    if not isinstance(reply, bytes):
        raise garbled(reply, "what it is")
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def are(reply: object, *kinds: type) -> bool:
    """Whether it is a list with one value of each kind."""
    return isinstance(reply, list) and len(reply) == len(kinds) and all(map(isinstance, reply, kinds))


def row(reply: object, *kinds: type, wanted: str = "a list of its values") -> list[Any]:
    """A list with one value of each kind: `bytes`, `int`, `list`, `object`, or `str` for bytes that are text."""
    if not isinstance(reply, list) or len(reply) != len(kinds):
        raise garbled(reply, wanted)
    values: list[Any] = []
    for value, kind in zip(reply, kinds, strict=True):
        if kind is str:
            values.append(text(value, wanted))
        elif isinstance(value, kind):
            values.append(value)
        else:
            raise garbled(reply, wanted)
    return values


def port(reply: object) -> int:
    """A TCP port, as a number or as a text."""
    number = int(reply) if isinstance(reply, str) and re.fullmatch("[0-9]{1,5}", reply) else reply
    if isinstance(number, int) and 0 < number < 65536:
        return number
    raise garbled(reply, "a port")


def slots(reply: object) -> list[tuple[int, int, tuple[str, int]]]:
    """CLUSTER SLOTS: first and last slot of each range, with host and port of its master."""
    wanted = "the slots of a cluster"
    found = []
    if not isinstance(reply, list):
        raise garbled(reply, wanted)
    for part in reply:
        first, last, master = row(part[:3] if isinstance(part, list) else part, int, int, list, wanted=wanted)
        host, at = row(master[:2], str, int, wanted=wanted)
        found.append((first, last, (host, port(at))))
    return found


def entry_id(reply: object) -> str:
    """The id of an entry of a stream."""
    if isinstance(reply, bytes):
        milliseconds, _, number = reply.partition(b"-")
        if milliseconds.isdigit() and number.isdigit() and len(milliseconds) <= 20 and len(number) <= 20:
            return reply.decode()
    raise garbled(reply, "the id of an entry")


def entries(reply: object) -> RawEntries:
    """Entries of a stream, as XRANGE gives them. One that was deleted in the meantime has None for its fields."""
    if not isinstance(reply, list):
        raise garbled(reply, "entries of a stream")
    found: RawEntries = []
    for entry in reply:
        if not isinstance(entry, list) or len(entry) != 2:
            raise garbled(entry, "an entry of a stream")
        at, raw = entry
        entry_id(at)
        if raw is not None and not (isinstance(raw, list) and set(map(type, raw)) <= {bytes} and len(raw) % 2 == 0):
            raise garbled(raw, "the fields of an entry")
        found.append((at, raw))
    return found


def read_entries(reply: object) -> RawEntries:
    """Entries of the one stream that XREAD was asked for; none if it gave nothing."""
    if reply is None or reply == []:
        return []
    (stream,) = row(reply, list, wanted="entries of a stream")
    _, found = row(stream, bytes, list, wanted="entries of a stream")
    return entries(found)


def _shown(reply: object) -> str:
    """What it is, without its contents, which may be long and are nobody's business."""
    if reply is None:
        return "nothing"
    if isinstance(reply, list):
        return f"a list of {len(reply)}"
    return {int: "a number", bytes: "a text"}.get(type(reply), type(reply).__name__)
