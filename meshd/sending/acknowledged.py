"""What the store has acknowledged lately, and the last count of each pair: both outlive the daemon.

A store that was killed or went back may have lost the end of what it acknowledged. What is kept here is sent to it
again (replay.py), and the counts go on where they were, so that a receiver sees what is missing all the same.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from meshd.core.message import entry_key
from meshd.core.wire import Outgoing
from meshd.disk.sentlog import SentLog
from meshd.observing.outage import Outage
from meshd.sending.counts import KEPT, SendCounts

log = logging.getLogger("meshd.store")

FORMAT = 1  # of what is kept


class Acknowledged(NamedTuple):
    """A message that the store has, as its `entry` with the count `n`. `ts`: when it was sent first, wall seconds."""

    out: Outgoing
    digest: str
    ts: float
    n: int
    entry: str


class _Header(msgspec.Struct, array_like=True):
    format: int
    store: str
    sid: str
    counts: list[tuple[str, str, int]]


_encode = msgspec.msgpack.Encoder().encode
_header = msgspec.msgpack.Decoder(_Header).decode
_record = msgspec.msgpack.Decoder(Acknowledged).decode


class Acknowledgements:
    """`incarnation` names the counts in every message: as long as those are known, it is the same.

    `store`: says which store it is, because what another one had is nothing to this one.
    """

    def __init__(self, kept: SentLog, store: str) -> None:
        self.incarnation = secrets.token_hex(8)
        self.counts = SendCounts()
        self.any = False  # whether something is kept
        self._kept: SentLog | None = kept
        self._store = store
        self._outage = Outage(log)
        try:
            header, records = kept.open()
            if not self._is_ours(header, records):
                kept.forget()
        except OSError as error:
            self._kept = None
            log.warning("what is sent is not kept for a store that may lose it: %s", error)

    def _is_ours(self, header: bytes, records: list[bytes]) -> bool:
        """Whether it is of this store and this format, and no count is missing. If so, they go on from there."""
        try:
            found, messages = _header(header), [_record(record) for record in records]
        except msgspec.MsgspecError:
            return False
        # A count that was forgotten would begin at 1 again: so all do, under another name.
        if found.store != self._store or found.format != FORMAT or len(found.counts) >= KEPT:
            return False
        self.incarnation = found.sid
        for sender, target, n in found.counts:
            self.counts.counted((sender, target), n)
        self.any = bool(messages)
        for message in messages:
            self.counts.counted((message.out.sender, message.out.target), message.n)
        return True

    def acknowledged(self, message: Acknowledged) -> None:
        """The store has it."""
        out, self.any = message.out, True
        self.counts.counted((out.sender, out.target), message.n)
        if self._kept is None:
            return
        try:
            self._kept.append(_encode(message), self._head)
        except OSError as error:
            self._outage.begin(f"what is sent is not kept for a store that may lose it: {error.strerror}")
        else:
            self._outage.end("what is sent is kept again")

    def lately(self, since: float) -> Iterator[Acknowledged]:
        """What is kept of what the store acknowledged since then, wall seconds of its clock; the newest first."""
        for record in reversed(self._kept.records() if self._kept is not None else []):
            message = _record(record)
            if entry_key(message.entry)[0] >= since * 1000:
                yield message

    def _head(self) -> bytes:
        return _encode(_Header(FORMAT, self._store, self.incarnation, self.counts.all()))
