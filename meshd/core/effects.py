"""What an agent's core decides, as values: the executor carries them out in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meshd.core.ledger import Escalate, Reping
from meshd.core.message import Malformed, Ping
from meshd.core.records import Record


class Commit(NamedTuple):
    """Write these records and sync, then `apply` each, and tell of them in the notify log."""

    records: Sequence[Record]


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


Effect = Commit | Quarantine | Pong | CheckLease | Wake | Reping | Escalate
