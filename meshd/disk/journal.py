"""An append-only file of records, each with its checksum, synced before anybody is told.

One line a record: CRC-32 of the rest in eight hex digits, a space, JSON. A torn tail is what a crash leaves:
it is cut. A damaged line in the middle is what a disk leaves: the file is kept aside and the rest is used.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from meshd.core.records import FORMAT, Header, Record, decode, encode
from meshd.disk.files import replace
from meshd.errors import ConfigError

COMPACT_SIZE = 1 << 20


def _line(record: Record) -> bytes:
    body = encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


class JournalHealth(NamedTuple):
    """Of a journal that somebody looks at from outside: bytes, and records that are damaged."""

    size: int
    damaged: int


def look(path: str, name: str) -> JournalHealth:
    """Read the journal and leave it as it is, whoever is writing to it. Raises as `Journal.load` does."""
    with open(path, "rb") as file:
        data = file.read()
    _, _, damaged = Journal(path, name)._parse(data)
    return JournalHealth(len(data), damaged)


class Journal:
    """One agent's journal. Methods block, and raise `OSError` with the file as it was before the call."""

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name
        self.damaged = 0
        self._fd = -1
        self._size = 0
        self._base = 0

    def load(self) -> list[Record]:
        """All records in order; a torn tail is cut off. Raises `ConfigError` for a newer format, file untouched."""
        try:
            with open(self.path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return []
        records, good, self.damaged = self._parse(data)
        if self.damaged:
            shutil.copy2(self.path, f"{self.path}.damaged-{int(time.time())}")
            replace(self.path, b"".join(map(_line, records)))
        elif good < len(data):
            os.truncate(self.path, good)
        return records

    def _parse(self, data: bytes) -> tuple[list[Record], int, int]:
        """The records, where the last good one ends, and how many lines are damaged (a torn tail is not)."""
        records: list[Record] = []
        start = good = damaged = suspect = whole = 0
        while start < len(data):
            newline = data.find(b"\n", start)
            end = newline + 1 if newline >= 0 else len(data)
            body = data[start + 9 : end - 1]
            if newline >= 0 and data[start : start + 9] == b"%08x " % zlib.crc32(body):
                records.append(self._record(body))
                good = end
                damaged += suspect
                suspect = whole = 0
            else:
                suspect += 1  # damage if a good line follows, else the torn tail
                whole += newline >= 0  # a torn line has no end: one that has was written, and is damaged
            start = end
        return records, good, damaged + whole

    def _record(self, body: bytes) -> Record:
        try:
            record: Record = decode(body)
        except msgspec.ValidationError as error:
            raise self._newer(str(error)) from None
        if isinstance(record, Header) and record.format > FORMAT:
            raise self._newer(f"format {record.format}")
        return record

    def _newer(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self.path} was written by a newer agent-mesh ({what})",
            "upgrade agent-mesh on this machine; the file was not touched",
        )

    def append(self, records: Iterable[Record]) -> None:
        """Write the records and sync. After an error none of them is there."""
        lines = b"".join(map(_line, records))
        if self._fd < 0:
            self._open()
        if self._size == 0:
            lines = _line(Header(name=self.name, format=FORMAT)) + lines
        try:
            written = 0
            while written < len(lines):
                written += os.write(self._fd, lines[written:])
            os.fdatasync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(lines)

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    @property
    def wants_compaction(self) -> bool:
        return self._size > max(COMPACT_SIZE, 2 * self._base)

    def compact(self, snapshot: Sequence[Record]) -> None:
        """Replace the journal by records that give the same state."""
        data = b"".join(map(_line, snapshot))
        replace(self.path, data)
        self.close()
        self._size = self._base = len(data)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
