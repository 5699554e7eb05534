"""Replies that are owed to an agent: open → responded → settled, or open → four re-pings → escalated.

Only mail that is newer than an entry answers it, by the places in the store's streams.

At most four re-pings and one escalation for an entry, whatever happens in between. Each is decided and
written down before it is sent, and is sent under an id made from the entry's, so that sending it again after
a crash is recognised as the same message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import NamedTuple

from meshd.core.clock import Wall
from meshd.core.message import PREVIEW, Message, entry_key
from meshd.core.records import Closed, Entry, Opened, Pinged, Sent

MAX_PINGS = 4
# Seconds from each re-ping to what follows it; the last one leads to the escalation.
PAUSES = (30.0, 60.0, 120.0, 240.0)
MAX_ENTRIES = 1000


class Ends(NamedTuple):
    """The last ids of an agent's own stream and of the group at one moment: what comes later stands behind them."""

    private: str
    group: str


class Reping(NamedTuple):
    """Ask again: send `text` to `to` under `id`, about the message `about`."""

    id: str
    about: str
    to: str
    text: str
    k: int


class Escalate(NamedTuple):
    """Tell the watchdog, once."""

    id: str
    about: str
    to: str
    text: str


def derived_id(message_id: str, k: int) -> str:
    """The id of the k-th re-ping of a message: the same whenever it is computed."""
    return hashlib.sha256(f"{message_id} {k}".encode()).hexdigest()[:32]


def _repings(entry: Entry) -> list[str]:
    """Ids under which it was asked again."""
    return [derived_id(entry.id, k) for k in range(1, min(entry.pings, MAX_PINGS) + 1)]


def _is_older(message: Message, entry: Entry) -> bool:
    """Whether the message was there before the entry was opened."""
    after = entry.after_group if message.kind == "broadcast" else entry.after
    return entry_key(message.at) <= entry_key(after)


def sent_repings(entry: Entry) -> int:
    """How many re-pings the store has taken."""
    return min(entry.pings - entry.unsent, MAX_PINGS) - entry.bounced


class Ledger:
    """State of one agent's pending entries. `apply_*` changes it; `due` and `next_due` only tell."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def next_due(self) -> Wall | None:
        """Wall time of the next thing to do, or None."""
        times = [Wall(entry.due) for entry in self.entries.values() if entry.due]
        return min(times, default=None)

    def due(self, now: Wall, fallen: Collection[str] = ()) -> list[Pinged]:
        """What falls due: one step for each entry, however late it is. `fallen`: those that another clock says are."""
        return [
            Pinged(id=entry.id, k=entry.pings + 1, now=now)
            for entry in self.entries.values()
            if entry.due and (entry.due <= now or entry.id in fallen)
        ]

    def unsent(self) -> list[Reping | Escalate]:
        """What was decided and not yet confirmed as sent."""
        return [self._action(entry) for entry in self.entries.values() if entry.unsent]

    def _action(self, entry: Entry) -> Reping | Escalate:
        action_id = derived_id(entry.id, entry.pings)
        if entry.pings > MAX_PINGS:
            bounced = f" ({entry.bounced} could not be sent: its mailbox is full)" if entry.bounced else ""
            text = f"[escalation] {entry.to} has not answered after {MAX_PINGS} re-pings{bounced}: {entry.text}"
            return Escalate(action_id, entry.id, entry.to, text)
        text = f"[re-ping {entry.pings}/{MAX_PINGS}] {entry.text}"
        return Reping(action_id, entry.id, entry.to, text, entry.pings)

    def settled_by(self, message: Message) -> list[str]:
        """Ids of the entries that this message answers: it names them, or one of their re-pings."""
        if message.re is None:
            return []
        named = self.entries.get(message.re)
        found = [named] if named else [entry for entry in self.entries.values() if message.re in _repings(entry)]
        return [entry.id for entry in found if not _is_older(message, entry)]

    def waiting(self) -> int:
        """How many entries wait for something. What 0.1 has escalated does not: 0.1 kept such entries for ever."""
        return sum(entry.state != "escalated" for entry in self.entries.values())

    def owed_by(self, peer: str) -> list[str]:
        return [entry.id for entry in self.entries.values() if entry.to == peer]

    def apply_opened(self, opened: Opened) -> None:
        self.entries[opened.entry.id] = opened.entry

    def apply_closed(self, closed: Closed) -> None:
        for entry_id in closed.ids:
            self.entries.pop(entry_id, None)

    def apply_left(self, entries: Iterable[Entry]) -> None:
        """Entries of agent-mesh 0.1 go on here, from where they stood."""
        for entry in entries:
            self.entries.setdefault(entry.id, entry)

    def apply_went_back(self, last: str) -> None:
        """The private stream ends at `last` by now: what comes behind that is new, also where its id is not."""
        for entry in self.entries.values():
            entry.after = min(entry.after, last, key=entry_key)

    def apply_message(self, message: Message) -> None:
        """A message came in: it settles what it answers; one that settles nothing stops the re-pings of its sender."""
        settled = self.settled_by(message)
        for entry_id in settled:
            del self.entries[entry_id]
        if settled or message.kind != "direct":
            return
        for entry in self.entries.values():
            if entry.to == message.sender and entry.state == "open" and not _is_older(message, entry):
                entry.state = "responded"
                entry.due = 0.0
                entry.unsent = False

    def apply_pinged(self, pinged: Pinged) -> None:
        entry = self.entries.get(pinged.id)
        if entry is None or entry.state != "open":
            return
        entry.pings = pinged.k
        entry.unsent = True
        entry.due = 0.0

    def apply_sent(self, sent: Sent) -> None:
        entry = self.entries.get(sent.id)
        if entry is None or not entry.unsent:
            return  # settled, or answered while it was on its way
        if entry.pings > MAX_PINGS:
            del self.entries[sent.id]
        else:
            entry.unsent = False
            entry.bounced += sent.bounced
            # From the sending, not from the deciding: after an outage the re-pings don't come in a burst.
            entry.due = sent.now + (0.0 if sent.bounced else PAUSES[entry.pings - 1])


def entry_for(message_id: str, to: str, text: str, now: Wall, within: float, ends: Ends) -> Entry:
    """A new open entry; its deadline is `within` seconds from `now`. What stands up to `ends` is older."""
    deadline = now + within
    return Entry(
        id=message_id,
        to=to,
        text=text[:PREVIEW],
        sent=now,
        deadline=deadline,
        due=deadline,
        after=ends.private,
        after_group=ends.group,
    )
