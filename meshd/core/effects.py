"""What an agent's core decides, as values: the executor carries them out in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshd.core.ledger import Escalate, Reping
from meshd.core.message import Malformed, Message, Ping
from meshd.core.records import Record, Segment


class Commit(NamedTuple):
    """Write these records and sync, then `apply` each, and tell of them in the notify log."""

    records: Sequence[Record]


class Spill(NamedTuple):
    """Write these messages into the segment's file and sync it, before the record that tells of it."""

    segment: Segment
    messages: Sequence[Message]


class Load(NamedTuple):
    """Read the segment's file, and go on with what `spilling.loaded` decides of what was found."""

    segment: Segment


class Drop(NamedTuple):
    """The files of these segments are not needed any more. `damaged`: they are kept for whoever wants to look."""

    numbers: Sequence[int]
    damaged: bool = False


class Quarantine(NamedTuple):
    """Keep the raw entries that could not be decoded."""

    entries: Sequence[Malformed]


class Pong(NamedTuple):
    """Answer a ping."""

    ping: Ping


class CheckLease(NamedTuple):
    """A daemon says that it took this name over: believe the lease, not the saying; then answer the ping.

    What stands behind it in the stream may be the other daemon's: it is not taken in before the store was asked.
    """

    ping: Ping


class Wake(NamedTuple):
    """Tell whoever waits that there is unread mail. A hint: it may be lost or repeated."""

    senders: frozenset[str]


Effect = Commit | Spill | Load | Drop | Quarantine | Pong | CheckLease | Wake | Reping | Escalate
