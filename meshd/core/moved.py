"""A name that goes on elsewhere: the last word on it here, and what changes by another daemon's."""

from __future__ import annotations

from meshd.core.effects import Commit, Drop, Effect, Load
from meshd.core.inbox import Inbox
from meshd.core.message import entry_key
from meshd.core.records import Batch, Moved, Read


def last_word(inbox: Inbox) -> Moved:
    """How far a name was read, for the daemon that hosts it next."""
    position = inbox.read_position()
    return Moved(
        position=position,
        group=inbox.read_group(),
        read_to=position.at,
        read_ids=inbox.read_beyond(),
        lost=inbox.losses.untold,
    )


def elsewhere_to_here(inbox: Inbox, elsewhere: Moved, told: Batch | None) -> list[Effect]:
    """The name was hosted elsewhere: what changes by going on where it was read there. `told` goes with it.

    Losses that nobody was told of here went there with the last word, and come back from there.
    """
    read_to, group_to = entry_key(elsewhere.read_to), entry_key(elsewhere.group or "0-0")
    elsewhere.read_ids = [
        *elsewhere.read_ids,
        *(m.id for m in inbox.unread.in_memory() if m.kind == "broadcast" and entry_key(m.at) <= group_to),
    ]
    if inbox.unread.segments:
        elsewhere.broadcasts_to = elsewhere.group
    reached = inbox.unread.reached(read_to, group_to)
    news = (
        inbox.is_behind(elsewhere.position)
        or (elsewhere.group is not None and inbox.group is None)
        or (elsewhere.group is not None and entry_key(elsewhere.group) > entry_key(inbox.group or "0-0"))
        or any(m.kind != "broadcast" and entry_key(m.at) <= read_to for m in inbox.unread.in_memory())
        or any(reached)
        or any(message_id not in inbox.seen for message_id in elsewhere.read_ids)
        or elsewhere.lost > 0
        or inbox.losses.untold > 0
        or bool(elsewhere.entries)
    )
    if not news:
        return []
    if elsewhere.group is not None and inbox.group is not None:
        elsewhere.group = max(elsewhere.group, inbox.group, key=entry_key)
    # Of what is read in part the rest must be told from it first: it comes back into memory.
    drop = [Drop([segment.number for segment in reached.whole])] if reached.whole else []
    given = [Read(ids=[], lost=inbox.losses.untold)] if inbox.losses.untold else []
    return [*map(Load, reached.partly), Commit([*given, elsewhere, *([told] if told is not None else [])]), *drop]
