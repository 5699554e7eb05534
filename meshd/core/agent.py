"""One agent: entries, ticks and commands go in with the time, effects come out.

Deciding (`receive`, `tick`, `open_reply` …) never changes the state; `apply` does, with the record that the
executor has put on the disk. Whoever crashes in between finds the state of the last record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from meshd.core.clock import Stored, Wall
from meshd.core.effects import CheckLease, Commit, Effect, Pong, Quarantine, Wake
from meshd.core.inbox import Inbox, StreamInfo
from meshd.core.ledger import MAX_ENTRIES, MAX_PINGS, Ends, Ledger, entry_for
from meshd.core.message import Decoded, Malformed, Message, Ping, entry_key, group_id
from meshd.core.moved import elsewhere_to_here, last_word
from meshd.core.names import Keys
from meshd.core.origin import origin_of
from meshd.core.queue import BOUNDS, Bounds
from meshd.core.records import (
    UNKNOWN,
    Batch,
    Closed,
    Damaged,
    Header,
    Loaded,
    Moved,
    Opened,
    Pinged,
    Position,
    Read,
    Record,
    Sent,
    Snapshot,
    Spilled,
    Unread,
)
from meshd.core.snapshot import snapshot_of
from meshd.core.text import one_line
from meshd.errors import Full

PING_AGE = 600.0  # seconds, by the store's clock; an older ping has nobody left waiting for it


class AgentCore:
    """The state machine of one agent: an inbox, a ledger, and the order of things between them."""

    def __init__(self, name: str, keys: Keys, bounds: Bounds = BOUNDS) -> None:
        self.name = name
        self.keys = keys
        self.inbox = Inbox(bounds)
        self.ledger = Ledger()

    # --- deciding ---

    def receive(
        self,
        entries: Sequence[Decoded],
        cursor: str,
        now: Wall,
        info: StreamInfo | None = None,
        stored: Stored | None = None,
    ) -> list[Effect]:
        """A read of the private stream: what came up to `cursor`, and the stream's counts if they were asked.

        `stored`: what the store's clock shows, if that is known.

        What stands at or before the place where the inbox stands by now is left out: it may have moved meanwhile.
        With the news that the name was taken over the batch ends, and `CheckLease` is its last effect.

        With a stream that went back, the entries are left alone: the cursor is set so that the next read
        finds all that the store still has, and the window of seen ids drops what was received before.
        """
        inbox = self.inbox
        if info is not None and inbox.went_back(info):
            line = "⚠ the store went back; reading again what it still has"
            batch = Batch(now=now, position=Position("0-0", UNKNOWN), lines=[line], went_back=info.last)
            inbox.damage.read_again(batch, "0-0", all_there_is=True)
            return [Commit([self._with_losses(batch)])]
        trimmed = inbox.trimmed(info) if info is not None else 0
        entries, cursor = self._until_moved(entries, cursor)
        if not entries and not trimmed and inbox.position.index != UNKNOWN and not inbox.damage.hole.missing:
            return []
        for entry in entries:
            if isinstance(entry, Message) and entry.kind == "broadcast":
                entry.kind, entry.to = "direct", None  # no broadcast stands on a private stream: a peer says so
                if entry.id == group_id(entry.at):
                    entry.id = entry.at
        index = inbox.ordinal(info) + trimmed
        batch = Batch(now=now, lost=trimmed)
        rest = self._sort(entries, batch, index, trimmed, stored)
        batch.position = Position(cursor, index + len(entries))
        over = info is not None and (not entries or entry_key(cursor) >= entry_key(info.last))
        inbox.damage.read_again(batch, cursor, all_there_is=over)
        return [*self._stored(self._with_losses(batch), entries), *rest]

    def _with_losses(self, batch: Batch) -> Batch:
        if batch.lost:
            what = f"{batch.lost} message{'s' * (batch.lost > 1)} to {self.name}"
            batch.lines.insert(0, f"⚠ LOST {what}, gone from the store")
        return batch

    def _until_moved(self, entries: Sequence[Decoded], cursor: str) -> tuple[Sequence[Decoded], str]:
        """Those behind the inbox's place, up to the news that the name was taken over; and where they end."""
        here = entry_key(self.inbox.position.at)
        news = [entry for entry in entries if entry_key(entry.at) > here]
        for k, entry in enumerate(news, 1):
            if isinstance(entry, Ping) and entry.moved:
                return news[:k], entry.at
        return news, max(cursor, self.inbox.position.at, key=entry_key)

    def receive_group(self, entries: Sequence[Message | Malformed], cursor: str, now: Wall) -> list[Effect]:
        """Broadcasts from the group stream, and where its reader stands."""
        after = entry_key(self.inbox.group or "0-0")
        news = [m for m in entries if entry_key(m.at) > after]
        mine = [m for m in news if m.sender != self.name]
        if not mine:
            return []
        batch = Batch(now=now, group=cursor)
        rest = self._sort(mine, batch, 0)
        if batch.lost:
            batch.lines.insert(0, f"⚠ LOST {batch.lost} broadcast{'s' * (batch.lost > 1)}, gone from the store")
        return [*self._stored(batch, mine), *rest]

    def forget_group(self, now: Wall) -> list[Effect]:
        """The group stream went back: what it still has may be new, and the ids tell what is not."""
        return [Commit([Batch(now=now, group="0-0")])]

    def _sort(
        self, entries: Sequence[Decoded], batch: Batch, index: int, trimmed: int = 0, stored: Stored | None = None
    ) -> list[Effect]:
        """Put each entry where it belongs: into the batch, or among the effects that follow it."""
        inbox = self.inbox
        unsure, everyone = inbox.losses.unsure_after(trimmed), batch.group is not None
        fresh: dict[str, Message] = {}
        effects: list[Effect] = []
        senders: set[str] = set()
        for ordinal, entry in enumerate(entries, index + 1):
            if isinstance(entry, Ping):
                if entry.moved:
                    effects.append(CheckLease(entry))
                elif stored is None or stored - entry_key(entry.at)[0] / 1000 < PING_AGE:
                    effects.append(Pong(entry))
                continue
            batch.lost += inbox.losses.gap(entry, batch.counts, unsure, broadcast=everyone, added=ordinal)
            if isinstance(entry, Malformed):
                mark = _mark(entry, batch)
                if not inbox.is_duplicate(mark):
                    batch.seen.append(mark)
                    batch.lines.append(one_line(entry.line))
                continue
            if entry.id in fresh or inbox.is_duplicate(entry.id):
                continue
            fresh[entry.id] = entry
            senders.add(entry.sender)
            about = entry.about or ""
            original = fresh[about].sender if about in fresh else inbox.unread_from(about)
            if original == entry.sender:
                # Still unread: remind, without a second entry. Anybody else's text would never be read.
                batch.seen.append(entry.id)
                batch.origins[entry.id] = origin_of(entry)
                batch.lines.append(entry.notify_line())
            else:
                entry.index = ordinal
                batch.messages.append(entry)
        if unsure != inbox.losses.unsure:
            batch.unsure = unsure
        if senders:
            effects.append(Wake(frozenset(senders)))
        return effects

    def _stored(self, batch: Batch, entries: Sequence[Decoded]) -> list[Effect]:
        malformed = [e for e in entries if isinstance(e, Malformed) and _mark(e, batch) in batch.seen]
        return [Quarantine(malformed), Commit([batch])] if malformed else [Commit([batch])]

    def tick(self, now: Wall, fallen: Collection[str] = ()) -> list[Effect]:
        """What fell due in the ledger. `fallen`: entries that are due whatever the wall clock says by now."""
        due = self.ledger.due(now, fallen)
        return [Commit(due)] if due else []

    def next_due(self) -> Wall | None:
        return self.ledger.next_due()

    def open_reply(
        self, message_id: str, to: str, text: str, now: Wall, within: float, ends: Ends | None = None
    ) -> list[Effect]:
        """An entry for a message that is about to be sent. The same id again changes nothing.

        `ends`: where the streams end in the store, asked before the message was sent. None if it did not tell: then
        what was not received by now counts as newer.
        """
        if message_id in self.ledger.entries:
            return []
        if self.ledger.waiting() >= MAX_ENTRIES:
            raise Full(
                f"{self.name} already waits for {MAX_ENTRIES} replies",
                f"meshctl pending {self.name}; settle what is answered with: meshctl ack PEER TEXT --from {self.name}",
            )
        ends = ends or Ends(self.inbox.position.at, self.inbox.group or "0-0")
        return [Commit([Opened(entry=entry_for(message_id, to, text, now, within, ends))])]

    def close_replies(self, ids: Iterable[str]) -> list[Effect]:
        known = [entry_id for entry_id in ids if entry_id in self.ledger.entries]
        return [Commit([Closed(ids=known)])] if known else []

    def mark_sent(self, entry_id: str, now: Wall) -> list[Effect]:
        return [Commit([Sent(id=entry_id, now=now)])] if entry_id in self.ledger.entries else []

    def bounce(self, entry_id: str, why: str, now: Wall) -> list[Effect]:
        """A re-ping could not be sent, until what follows it was due: that is said, and goes on from here."""
        entry = self.ledger.entries.get(entry_id)
        if entry is None or not entry.unsent:
            return []
        line = one_line(f"⚠ re-ping {entry.pings}/{MAX_PINGS} was {why} [{entry_id}]")
        return [Commit([Sent(id=entry_id, now=now, bounced=True), Batch(now=now, lines=[line])])]

    def mark_read(self, ids: Sequence[str], lost: int = 0) -> list[Effect]:
        """The hand-over of these messages, and of so many losses, was confirmed."""
        known = [message_id for message_id in ids if message_id in self.inbox.unread]
        return [Commit([Read(ids=known, lost=lost)])] if known or lost else []

    def move(self, elsewhere: Moved, told: Batch | None = None) -> list[Effect]:
        """The name was hosted elsewhere: what changes by going on where it was read there. `told` goes with it."""
        return elsewhere_to_here(self.inbox, elsewhere, told)

    def mend(self, now: Wall) -> list[Record]:
        """What a damaged journal may have lost is read again, from where it was whole. Nothing if it is not damaged."""
        inbox = self.inbox
        return [inbox.damage.mend(now, inbox.group)] if inbox.damage.is_fresh else []

    def give_losses(self) -> list[Effect]:
        """The next holder tells of the losses that nobody here was told of."""
        untold = self.inbox.losses.untold
        return [Commit([Read(ids=[], lost=untold)])] if untold else []

    def take_left(self, messages: Sequence[Message], until: Position | None, now: Wall) -> list[Effect]:
        """Unread mail that only the disk of the previous holder had; with `until`, all that is not in the store."""
        inbox = self.inbox
        fresh = [message for message in messages if not inbox.is_duplicate(message.id)]
        position = until if until is not None and inbox.is_behind(until) else None
        if not fresh and position is None:
            return []
        batch = Batch(now=now, position=position, messages=fresh)
        return [Commit([batch]), *([Wake(frozenset(message.sender for message in fresh))] if fresh else [])]

    # --- applying ---

    def apply(self, record: Record) -> None:
        inbox, ledger = self.inbox, self.ledger
        match record:
            case Batch():
                inbox.apply_batch(record)
                if record.went_back is not None:
                    ledger.apply_went_back(record.went_back)
                for message in record.messages:
                    ledger.apply_message(message)
            case Read():
                inbox.apply_read(record)
            case Moved():
                inbox.apply_moved(record)
                ledger.apply_left(record.entries)
            case Opened():
                ledger.apply_opened(record)
            case Pinged():
                ledger.apply_pinged(record)
            case Sent():
                ledger.apply_sent(record)
            case Closed():
                ledger.apply_closed(record)
            case Snapshot():
                inbox.damage.awaits_snapshot = False
                inbox.apply_snapshot(record)
                ledger.entries = {entry.id: entry for entry in record.entries}
            case Unread() | Spilled() | Loaded() | Damaged():
                inbox.apply_mail(record)
            case Header():
                inbox.damage.awaits_snapshot = record.compacted

    # --- telling ---

    def snapshot(self) -> Iterator[Record]:
        """Records that give the whole state (snapshot.py). Nothing may be applied until the last one was asked for."""
        return snapshot_of(self.name, self.inbox, self.ledger)

    def read_record(self) -> Moved:
        """How far this name was read, for the daemon that hosts it next."""
        return last_word(self.inbox)


def _mark(entry: Malformed, batch: Batch) -> str:
    """What is remembered of a bad entry. Entries of two streams may have one id."""
    return f"q:{entry.at}" if batch.group is None else f"g:{entry.at}"
