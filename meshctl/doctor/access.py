"""What the store lets our account do: each command that the mesh needs, tried where it does no harm.

Written to are only keys of an id that nobody has, and those expire in seconds; the others are read, or asked for a
change of nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from meshd.core.names import Keys, new_id
from meshd.errors import StoreError
from meshd.store.link import Link
from meshd.store.refusals import Forbidden
from meshd.store.scripts import answers

_TTL = 10  # seconds
_COMMAND = re.compile(r"'([a-zA-Z|]+)'")
_USER = re.compile(r"NOPERM User (\S+) has")
_READ_OF = 5  # agents whose keys are tried


class Access(NamedTuple):
    """`forbidden`: commands; `keys`: whether some of the mesh's keys are. `refused`: why nothing can be written."""

    forbidden: list[str] = []
    keys: bool = False
    user: str | None = None
    refused: StoreError | None = None


async def try_access(link: Link, keys: Keys, agents: Sequence[str]) -> Access:
    """Raises `StoreError` if the connection breaks."""
    tries = _tries(keys, agents)
    replies = await link.batch(tries)
    denied = [(tried, reply) for tried, reply in zip(tries, replies, strict=True) if isinstance(reply, Forbidden)]
    commands = sorted({_name(tried, reply) for tried, reply in denied if " command" in reply.message})
    users = [found[1] for _, reply in denied if (found := _USER.search(reply.message))]
    written = replies[0]
    refused = written if isinstance(written, StoreError) and not isinstance(written, Forbidden) else None
    return Access(commands, any(" key" in reply.message for _, reply in denied), users[0] if users else None, refused)


def _tries(keys: Keys, agents: Sequence[str]) -> list[tuple[Any, ...]]:
    nonce, nobody = new_id(), f"doctor-{secrets.token_hex(4)}"
    dedupe, pong = keys.dedupe(nonce), keys.pong(nonce)
    tries: list[tuple[Any, ...]] = [
        ("SET", dedupe, "1", "EX", _TTL),
        ("GET", dedupe),
        ("EXISTS", dedupe),
        ("TTL", dedupe),
        ("INCR", dedupe),
        ("EXPIRE", dedupe, _TTL),
        ("XADD", pong, "MAXLEN", "~", 1, "*", "doctor", "1"),
        ("EXPIRE", pong, _TTL),
        ("XREAD", "COUNT", 1, "STREAMS", pong, "0-0"),
        ("XINFO", "STREAM", pong),
        ("XLEN", pong),
        ("XTRIM", pong, "MINID", "0-1"),
        ("XRANGE", pong, "-", "+"),
        ("MULTI",),
        ("EXEC",),
        ("EVAL", "return redis.call('EXPIRE', KEYS[1], ARGV[1])", 1, pong, _TTL),
        ("SCRIPT", "LOAD", answers.ANSWER.source),
        answers.pong(keys, nonce, ("doctor", "1"), _TTL).command(),
        ("XREVRANGE", keys.group, "+", "-", "COUNT", 1),
        ("ZRANGEBYSCORE", keys.presence, "-inf", "-inf"),
        ("ZREMRANGEBYSCORE", keys.presence, "-inf", "-inf"),
        ("ZADD", keys.presence, "XX", 0, nobody),
    ]
    for name in agents[:_READ_OF]:
        tries.append(("XREVRANGE", keys.inbox(name), "+", "-", "COUNT", 1))
        tries.append(("MGET", keys.registry(name), keys.lease(name), keys.read(name)))
    return [*tries, ("DEL", dedupe, pong)]


def _name(tried: tuple[Any, ...], reply: Forbidden) -> str:
    """As an access list names it: `xadd`, `script|load`."""
    found = _COMMAND.search(reply.message)
    return (found[1] if found else str(tried[0])).lower()
