"""The script that asks whether an agent's daemon is there."""

from __future__ import annotations

from typing import NamedTuple

from meshd.core.message import entry_time
from meshd.core.names import Keys
from meshd.core.wire import MAXLEN, READ_RECORD, STREAM_TTL
from meshd.store import replies
from meshd.store.scripts.script import Invocation, Script
from meshd.store.scripts.sending import Waiting


class _Keys(NamedTuple):
    stream: str
    registry: str
    lease: str
    read: str


class _Args(NamedTuple):
    pass


def _read(reply: object) -> Waiting | None:
    verdict, entries, oldest = replies.row(reply, str, int, str)
    if verdict not in ("pinged", "busy"):
        raise replies.garbled(reply, "whether somebody was pinged")
    return Waiting(entries, entry_time(oldest)) if verdict == "busy" else None


PING = Script(
    "ping",
    _Keys,
    _Args,
    _read,
    wrote=lambda waiting: waiting is None,
    constants={"MAXLEN": MAXLEN, "RECORD": READ_RECORD, "STREAM_TTL": STREAM_TTL},
    parts=("stream", "room"),
)


def ping(keys: Keys, name: str, fields: tuple[str, ...]) -> Invocation[Waiting | None]:
    """Put a ping, as fields and values, into the mailbox of a name: None, or what waits there and leaves no room."""
    return PING(
        _Keys(stream=keys.inbox(name), registry=keys.registry(name), lease=keys.lease(name), read=keys.read(name)),
        fields,
    )
