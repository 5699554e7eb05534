"""The script that finds where messages stand in a stream, by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshd.core.wire import MAXLEN
from meshd.store import replies
from meshd.store.scripts.script import Invocation, Script

_MOST = 2 * MAXLEN  # entries that are looked at; a stream's bound is kept approximately


class _Keys(NamedTuple):
    stream: str


class _Args(NamedTuple):
    pass


def _read(reply: object) -> dict[str, str]:
    if not isinstance(reply, list):
        raise replies.garbled(reply, "places of messages")
    rows = [replies.row(entry, str, bytes, wanted="the place of a message") for entry in reply]
    return {message_id: replies.entry_id(at) for message_id, at in rows}


PLACES = Script("places", _Keys, _Args, _read, wrote=lambda found: False, constants={"MOST": _MOST}, writes=False)


def places(stream: str, ids: Sequence[str]) -> Invocation[dict[str, str]]:
    """The entry ids of these messages, as far as the stream still has them."""
    return PLACES(_Keys(stream), _Args() + tuple(ids))
