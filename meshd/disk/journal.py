"""An append-only file of records, each with its checksum, synced before anybody is told.

One line a record: CRC-32 of the rest in eight hex digits, a space, JSON. A torn tail is what a crash leaves:
it is cut. A damaged line in the middle is what a disk leaves: the file is kept aside and the rest is used.
Half a line that ends in a CAN character is what a write left that failed and could not be taken back: it was
acknowledged to nobody, and is passed over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from meshd.core.records import FORMAT, PLAIN, Damaged, Header, Record, decode, encode
from meshd.disk.files import OpenFile, make_folders, sync_dir, write_all
from meshd.disk.pace import Pace
from meshd.errors import ConfigError

COMPACT_SIZE = 1 << 20
# Ends half a line, so that the next record has a line of its own. No record contains it: JSON writes it as an escape.
_CAN = b"\x18"
_READ_SIZE = 1 << 20
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


def line_of(record: Record) -> bytes:
    """The record as it stands in a file."""
    body = encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def body_of(line: bytes) -> bytes | None:
    """The JSON of a line of a file; None if it is not whole."""
    body = line[9:-1]
    return body if line.endswith(b"\n") and line[:9] == b"%08x " % zlib.crc32(body) else None


class JournalGone(OSError):
    """The path leads no more to the file that was written: somebody removed it, or put another one there.

    Whoever has the whole state writes it with `compact`, and the journal goes on.
    """

    def __init__(self, path: str) -> None:
        super().__init__(errno.ENOENT, "the journal was removed", path)


class JournalHealth(NamedTuple):
    """Of a journal that somebody looks at from outside: bytes, records that are damaged, and all that are not."""

    size: int
    damaged: int
    records: list[Record]


def look(path: str, name: str) -> JournalHealth:
    """Read the journal and leave it as it is, whoever is writing to it. Raises as `Journal.load` does."""
    with open(path, "rb", _READ_SIZE) as file:
        records, _, damaged = Journal(path, name)._parse(file)
        return JournalHealth(file.tell(), damaged, records)


class Journal:
    """One agent's journal. Methods block, and raise `OSError` with no record more or less than before the call.

    One method runs at a time, in any thread; `close` may be called meanwhile, and then is done at that one's end.
    """

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name
        self.damaged = 0
        self._file = OpenFile()
        self._place: tuple[int, int] | None = None  # device and inode of the file that has our records
        self._size = 0
        self._torn = False  # half a line stands behind `_size`
        self._named = True  # the folder was synced since the file got its name
        self._scale = 1.0

    def load(self) -> list[Record]:
        """All records in order; a torn tail is cut off. Raises `ConfigError` for a newer format, file untouched."""
        with self._file.used():
            try:
                file = open(self.path, "rb", _READ_SIZE)  # noqa: SIM115
            except FileNotFoundError:
                return []
            with file:
                status = os.fstat(file.fileno())
                records, good, self.damaged = self._parse(file)
            self._place = status.st_dev, status.st_ino
            if self.damaged:
                shutil.copy2(self.path, f"{self.path}.damaged-{int(time.time())}")
                self._rewrite(Damaged() if isinstance(record, Damaged) else record for record in records)
            elif good < status.st_size:
                os.truncate(self.path, good)
            return records

    def _parse(self, lines: Iterable[bytes]) -> tuple[list[Record], int, int]:
        """The records, where the last good one ends, and how many lines are damaged (a torn tail is not)."""
        records: list[Record] = []
        end = good = damaged = suspect = whole = 0
        pace = Pace()
        for line in lines:
            pace()
            end += len(line)
            body = body_of(line)
            if body is not None:
                if suspect:
                    records.append(Damaged(new=True))
                records.append(self._record(body))
                good = end
                damaged += suspect
                suspect = whole = 0
            elif not line.endswith(_CAN + b"\n"):
                suspect += 1  # damage if a good line follows, else the torn tail
                whole += line.endswith(b"\n")  # a torn line has no end: one that has was written, and is damaged
        if whole:
            records.append(Damaged(new=True))
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
        """Write the records and sync. Raises `JournalGone` if they would be in no file that a restart finds."""
        lines = b"".join(map(line_of, records))
        with self._file.used():
            if self._file.fd < 0:
                self._open()
            if self._size == 0:
                lines = line_of(Header(name=self.name, format=PLAIN)) + lines
            try:
                if self._torn and not self._take_back():
                    lines = _CAN + b"\n" + lines
                write_all(self._file.fd, lines)
                os.fdatasync(self._file.fd)
                self._check_name()
            except OSError:
                self._take_back()
                raise
            self._size = os.fstat(self._file.fd).st_size if self._torn else self._size + len(lines)
            self._torn = False

    def _open(self) -> None:
        """The file that was loaded, or a new one if there was none."""
        flags = _APPEND if self._place is not None else _APPEND | os.O_CREAT
        try:
            fd = os.open(self.path, flags, 0o600)
        except FileNotFoundError:
            raise JournalGone(self.path) from None
        self._file.set(fd)
        if self._place not in (None, self._file.place()):
            self._file.set(-1)
            raise JournalGone(self.path)
        self._place, self._size = self._file.place(), os.fstat(fd).st_size
        self._named = self._size > 0

    def _check_name(self) -> None:
        """After the sync, so that nothing is acknowledged which was written into a file without this name.

        What is removed after this look was on the disk when it was acknowledged.
        """
        if not self._named:
            sync_dir(os.path.dirname(self.path))
            self._named = True
        try:
            found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            raise JournalGone(self.path) from None
        if (found.st_dev, found.st_ino) != self._place:
            raise JournalGone(self.path)

    def _take_back(self) -> bool:
        """Cut off what stands behind the last record. A file that takes appends only (see chattr(1)) refuses."""
        try:
            os.ftruncate(self._file.fd, self._size)
        except OSError:
            self._torn = True
        else:
            self._torn = False
        return not self._torn

    def compaction_due(self, live: int) -> bool:
        """Whether it is worth writing the journal anew, of whose records about `live` bytes still count.

        A state that is itself large is not written again with every record: only when half of the file is of no use.
        """
        return self._size > max(COMPACT_SIZE, 2 * self._scale * live)

    def compact(self, snapshot: Iterable[Record], live: int = 0) -> None:
        """Replace the journal by records that give the same state, of which `live` is as in `compaction_due`.

        Makes the folder, too, if it is gone. If the error is of the last step, which syncs the folder, then the new
        file is the journal, and no record is taken into it before the folder could be synced.
        """
        with self._file.used():
            self._rewrite(snapshot, live)

    def _rewrite(self, records: Iterable[Record], live: int = 0) -> None:
        """In pieces, so that neither memory nor the event loop pays for the whole at once."""
        folder, temporary = os.path.dirname(self.path), f"{self.path}.new"
        make_folders(folder)
        # One fixed name: what a crash leaves of it is overwritten the next time.
        fd = os.open(temporary, _APPEND | os.O_CREAT | os.O_TRUNC, 0o600)
        size, pace = 0, Pace()
        try:
            for record in records:
                line = line_of(record)
                write_all(fd, line)
                size += len(line)
                pace()
            os.fsync(fd)
            os.replace(temporary, self.path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        self._file.set(fd)
        self._place, self._size, self._torn, self._named = self._file.place(), size, False, False
        # What counts takes more room where its characters are quoted: so much is to be expected of what comes later.
        self._scale = max(1.0, size / live) if live > COMPACT_SIZE // 16 else 1.0
        sync_dir(folder)
        self._named = True

    def close(self) -> None:
        """Never waits: a thread that hangs in the file closes it when it comes back."""
        self._file.close()
