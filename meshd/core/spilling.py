"""Which unread mail goes to the disk, and which comes back: what is kept in memory is bounded, and its order stays.

A message is in the journal or in a segment, never in neither: a segment is on the disk before the record that takes its
messages out of the journal, and is removed after the record that has taken them in again. So a journal is read without
a look into any segment, and what a crash leaves beside it is a file that no record tells of.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from meshd.core.clock import Wall
from meshd.core.effects import Commit, Drop, Effect, Load, Spill
from meshd.core.inbox import Inbox
from meshd.core.message import Message, entry_key
from meshd.core.origin import origin_of
from meshd.core.records import Batch, Loaded, Position, Record, Segment, Spilled

SENDERS = 100  # that a segment tells of; of more than these a wake names as many


def spill(inbox: Inbox) -> list[Effect]:
    """One chunk of what is too much in memory; nothing when there is none.

    Nobody can take of it until that has ended: what was taken would be dropped when it is on the disk, and could not be
    confirmed. If that fails, `stays` gives it back.
    """
    chunk = inbox.surplus()
    if chunk is None:
        return []
    messages = list(chunk.messages.values())
    segment = chunk.leaving = segment_of(inbox.unread.last + 1, messages)
    return [Spill(segment, messages), Commit([Spilled(segment=segment)])]


def stays(inbox: Inbox) -> None:
    """Nothing is on its way to the disk any more."""
    inbox.unread.stay()


def segment_of(number: int, messages: Sequence[Message]) -> Segment:
    """What is to be known of a segment that has these messages, which are of one kind."""
    first = messages[0]
    places = [message.at for message in messages]
    return Segment(
        number=number,
        broadcasts=first.kind == "broadcast",
        count=len(messages),
        size=sum(message.size for message in messages),
        first=Position(first.at, first.index),
        low=min(places, key=entry_key),
        high=max(places, key=entry_key),
        senders=sorted({message.sender for message in messages})[:SENDERS],
        ids={message.id: origin_of(message) for message in messages},
    )


def bring(inbox: Inbox, limit: int, max_bytes: int, *, direct: bool = False) -> list[Effect]:
    """The next segment that must be in memory before so much can be taken; nothing when it can."""
    segment = inbox.missing(limit, max_bytes, direct=direct)
    return [Load(segment)] if segment is not None else []


def loaded(inbox: Inbox, segment: Segment, found: Collection[Message], name: str, now: Wall) -> list[Effect]:
    """The messages that were found in the segment's file: those that are not there are lost."""
    if segment.number not in inbox.unread.segments:
        return []
    kept = [message for message in found if not inbox.is_read(message.id)]
    lost = max(0, segment.count - len(found))
    records: list[Record] = [Loaded(number=segment.number, messages=kept, lost=lost)]
    if lost:
        what = "message" if lost == 1 else "messages"
        line = f"⚠ LOST {lost} {what} to {name}: segment {segment.number} of its unread mail is damaged"
        records.append(Batch(now=now, lines=[line]))
    return [Commit(records), Drop([segment.number], damaged=bool(lost))]
