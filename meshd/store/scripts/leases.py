"""The scripts of a name's lease: take it, renew it or give it up, and leave word of how far it was read."""

from __future__ import annotations

from typing import NamedTuple

from meshd.core.inbox import StreamInfo
from meshd.core.message import entry_after
from meshd.core.names import Keys
from meshd.core.records import Position
from meshd.core.wire import READ_TTL, STREAM_TTL
from meshd.store import replies
from meshd.store.scripts.script import Invocation, Script


class Granted(NamedTuple):
    """The name is this daemon's. `read` is the read record, `group_last` the group's last entry; both as they stand
    in the store, `read` empty if there is none. `previous`: the instance that it was taken from, or empty. `added`:
    entries that the name's stream ever had, of which it still has `behind` that stand behind the cursor. `left`:
    whether the last holder has left mail. `first`: id of the stream's first entry, empty if it has none.
    """

    read: bytes
    group_last: str
    previous: str
    added: int
    behind: int
    left: bool
    first: str = ""


class Withheld(NamedTuple):
    """The name is another daemon's: its instance, and its registry entry or nothing."""

    holder: str
    registry: bytes


class _HostKeys(NamedTuple):
    lease: str
    registry: str
    presence: str
    read: str
    group: str
    stream: str  # the name's
    left: str


class _HostArgs(NamedTuple):
    instance: str
    ttl: int  # seconds
    entry: bytes  # JSON for the registry, empty for a hidden name
    name: str
    now: str
    takeover: int
    nonce: str  # of the ping that tells the holder
    cursor: str  # an entry id in the name's stream


def _read_host(reply: object) -> Granted | Withheld:
    if isinstance(reply, list) and len(reply) == 8 and reply[0] == 1:
        read, last, previous, added, behind, left, first = replies.row(reply[1:], bytes, str, str, int, int, int, str)
        return Granted(read, last, previous, added, behind, bool(left), first)
    if isinstance(reply, list) and len(reply) == 3 and reply[0] == 0:
        return Withheld(*replies.row(reply[1:], str, bytes))
    raise replies.garbled(reply, "whose a name is")


HOST = Script(
    "host",
    _HostKeys,
    _HostArgs,
    _read_host,
    wrote=lambda answer: isinstance(answer, Granted),
    constants={"STREAM_TTL": STREAM_TTL},
    parts=("stream",),
)


def host(
    keys: Keys,
    name: str,
    *,
    instance: str,
    ttl: int,
    entry: bytes,
    now: float,
    takeover: bool,
    nonce: str,
    cursor: str,
) -> Invocation[Granted | Withheld]:
    """Take a name for `ttl` seconds from `now`, wall seconds; with `takeover` from whoever holds it.

    `cursor`: an entry id in its stream, behind which the entries are counted.
    """
    return HOST(
        _HostKeys(
            lease=keys.lease(name),
            registry=keys.registry(name),
            presence=keys.presence,
            read=keys.read(name),
            group=keys.group,
            stream=keys.inbox(name),
            left=keys.left(name),
        ),
        _HostArgs(
            instance=instance,
            ttl=ttl,
            entry=entry,
            name=name,
            now=f"{now:.3f}",
            takeover=int(takeover),
            nonce=nonce,
            cursor=cursor,
        ),
    )


class _RenewKeys(NamedTuple):
    lease: str
    registry: str
    presence: str
    read: str
    stream: str


class _RenewArgs(NamedTuple):
    instance: str
    ttl: int  # seconds; 0 gives the name up
    entry: bytes
    name: str
    now: str


def _is_ours(reply: object) -> bool:
    (ours,) = replies.row(reply, int)
    return bool(ours)


RENEW = Script(
    "renew",
    _RenewKeys,
    _RenewArgs,
    _is_ours,
    wrote=bool,
    constants={"READ_TTL": READ_TTL, "STREAM_TTL": STREAM_TTL},
)


def renew(keys: Keys, name: str, *, instance: str, ttl: int, entry: bytes, now: float) -> Invocation[bool]:
    """Renew a lease and its registry entry, or give both up with a `ttl` of 0: whether the name is ours, or was."""
    return RENEW(
        _RenewKeys(
            lease=keys.lease(name),
            registry=keys.registry(name),
            presence=keys.presence,
            read=keys.read(name),
            stream=keys.inbox(name),
        ),
        _RenewArgs(instance=instance, ttl=ttl, entry=entry, name=name, now=f"{now:.3f}"),
    )


class _PositionKeys(NamedTuple):
    lease: str
    read: str
    stream: str


class _PositionArgs(NamedTuple):
    instance: str
    record: bytes  # JSON, with the instance as `h`
    begin: str  # id of the first entry that may be unread
    received: str  # id of the last one that was received
    ordinal: int  # how many were ever added up to that, or `UNKNOWN`


class Noted(NamedTuple):
    """Whether the name is ours, and whether what was to be written about it was."""

    ours: bool
    written: bool


def _read_position(reply: object) -> Noted:
    return Noted(*map(bool, replies.row(reply, int, int)))


POSITION = Script(
    "position",
    _PositionKeys,
    _PositionArgs,
    _read_position,
    wrote=lambda noted: noted.written,
    constants={"READ_TTL": READ_TTL},
    parts=("stream",),
)


def position(
    keys: Keys, name: str, *, instance: str, record: bytes, read_to: str, received: Position
) -> Invocation[Noted]:
    """Write how far a name was read, as a `record`, and remove the entries up to there from the store.

    `received`: where its reader stands. From a stream that has not come so far nothing is removed: it went back.
    """
    return POSITION(
        _PositionKeys(lease=keys.lease(name), read=keys.read(name), stream=keys.inbox(name)),
        _PositionArgs(
            instance=instance, record=record, begin=entry_after(read_to), received=received.at, ordinal=received.index
        ),
    )


# What these are refused is an agent's trouble, and told as such.
OF_AGENTS = (HOST, RENEW, POSITION)


class Beginning(NamedTuple):
    """The id of a stream's first entry, empty if it has none; and its counts."""

    first: str
    info: StreamInfo


class _CountsKeys(NamedTuple):
    stream: str


class _CountsArgs(NamedTuple):
    pass


def _read_counts(reply: object) -> Beginning:
    first, length, added, last = replies.row(reply, str, int, int, str)
    return Beginning(first, StreamInfo(length, added, last))


COUNTS = Script("counts", _CountsKeys, _CountsArgs, _read_counts, wrote=lambda found: False, writes=False)


def counts(stream: str) -> Invocation[Beginning]:
    """Where a stream begins, and its counts."""
    return COUNTS(_CountsKeys(stream), _CountsArgs())
