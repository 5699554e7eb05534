"""The script that tells how far the streams go, without fetching what stands there."""

from __future__ import annotations

from typing import NamedTuple

from meshd.core.names import Keys
from meshd.store import replies
from meshd.store.scripts.script import Invocation, Script


class Latest(NamedTuple):
    """The ids of the last entries of a name's stream and of the group, and the instance that holds the name.

    Each is empty if there is none.
    """

    private: str
    group: str
    holder: str


class _Keys(NamedTuple):
    stream: str
    group: str
    lease: str


class _Args(NamedTuple):
    pass


def _read(reply: object) -> Latest:
    private, group, holder = replies.row(reply, bytes, bytes, str)
    return Latest(_id(private), _id(group), holder)


def _id(at: bytes) -> str:
    return replies.entry_id(at) if at else ""


LATEST = Script("latest", _Keys, _Args, _read, wrote=lambda found: False)


def latest(keys: Keys, name: str) -> Invocation[Latest]:
    """How far the streams of a name go, and who holds it."""
    return LATEST(_Keys(stream=keys.inbox(name), group=keys.group, lease=keys.lease(name)), _Args())
