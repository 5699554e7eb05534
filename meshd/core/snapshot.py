"""The whole state of an agent as records: what a compacted journal holds."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.core.inbox import Inbox
from meshd.core.ledger import Ledger
from meshd.core.message import Message
from meshd.core.queue import Queue
from meshd.core.records import FORMAT, PLAIN, Header, Record, Segment, Snapshot, Spilled, Unread

# Of unread messages in one record of a snapshot: whoever encodes one holds up everybody else for so long.
SNAPSHOT_CHUNK = 200
SNAPSHOT_BYTES = 1 << 18


def snapshot_of(name: str, inbox: Inbox, ledger: Ledger) -> Iterator[Record]:
    """Records that give the whole state: what a compacted journal holds.

    They are made as they are asked for, and nothing may be applied until the last one was.
    """
    yield Header(name=name, format=FORMAT if inbox.unread.segments else PLAIN, compacted=True)
    yield Snapshot(
        position=inbox.position,
        group=inbox.group,
        seen=inbox.seen.private,
        seen_broadcasts=inbox.seen.broadcasts,
        read_above=inbox.read_above,
        group_above=inbox.group_above,
        read_elsewhere=inbox.read_elsewhere,
        counts=inbox.losses.counts,
        unsure=inbox.losses.unsure,
        counted_to=inbox.losses.counted_to,
        hole=inbox.damage.hole if inbox.damage.hole.missing else None,
        lost_total=inbox.losses.total,
        lost_untold=inbox.losses.untold,
        segment=inbox.unread.last,
        entries=list(ledger.entries.values()),
    )
    for queue in (inbox.unread.private, inbox.unread.broadcasts):
        yield from _in_order(queue)


def _in_order(queue: Queue) -> Iterator[Record]:
    messages: list[Message] = []
    size = 0
    for part in queue.parts:
        if isinstance(part, Segment):
            if messages:
                yield Unread(messages=messages)
                messages, size = [], 0
            yield Spilled(segment=part)
            continue
        for message in part.messages.values():
            messages.append(message)
            size += message.size
            if len(messages) >= SNAPSHOT_CHUNK or size >= SNAPSHOT_BYTES:
                yield Unread(messages=messages)
                messages, size = [], 0
    if messages:
        yield Unread(messages=messages)
