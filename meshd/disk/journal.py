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
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from meshd.core.records import FORMAT, Header, Record, decode, encode
from meshd.disk.files import make_folders, sync_dir, write_all
from meshd.disk.pace import Pace
from meshd.errors import ConfigError

COMPACT_SIZE = 1 << 20
# Ends half a line, so that the next record has a line of its own. No record contains it: JSON writes it as an escape.
_CAN = b"\x18"
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


def _line(record: Record) -> bytes:
    body = encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


class JournalGone(OSError):
    """The path leads no more to the file that was written: somebody removed it, or put another one there.

    Whoever has the whole state writes it with `compact`, and the journal goes on.
    """

    def __init__(self, path: str) -> None:
        super().__init__(errno.ENOENT, "the journal was removed", path)


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
    """One agent's journal. Methods block, and raise `OSError` with no record more or less than before the call.

    One method runs at a time, in any thread; `close` may be called meanwhile, and then is done at that one's end.
    """

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name
        self.damaged = 0
        self._busy = threading.Lock()
        self._closing = False
        self._fd = -1
        self._place: tuple[int, int] | None = None  # device and inode of the file that has our records
        self._size = 0
        self._torn = False  # half a line stands behind `_size`
        self._named = True  # the folder was synced since the file got its name
        self._scale = 1.0

    def load(self) -> list[Record]:
        """All records in order; a torn tail is cut off. Raises `ConfigError` for a newer format, file untouched."""
        with self._work():
            try:
                with open(self.path, "rb") as file:
                    data = file.read()
                    self._place = _place(file.fileno())
            except FileNotFoundError:
                return []
            records, good, self.damaged = self._parse(data)
            if self.damaged:
                shutil.copy2(self.path, f"{self.path}.damaged-{int(time.time())}")
                self._rewrite(records)
            elif good < len(data):
                os.truncate(self.path, good)
            return records

    def _parse(self, data: bytes) -> tuple[list[Record], int, int]:
        """The records, where the last good one ends, and how many lines are damaged (a torn tail is not)."""
        records: list[Record] = []
        start = good = damaged = suspect = whole = 0
        pace = Pace()
        while start < len(data):
            pace()
            newline = data.find(b"\n", start)
            end = newline + 1 if newline >= 0 else len(data)
            body = data[start + 9 : end - 1]
            if newline >= 0 and data[start : start + 9] == b"%08x " % zlib.crc32(body):
                records.append(self._record(body))
                good = end
                damaged += suspect
                suspect = whole = 0
            elif newline < 0 or data[newline - 1 : newline] != _CAN:
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
        """Write the records and sync. Raises `JournalGone` if they would be in no file that a restart finds."""
        lines = b"".join(map(_line, records))
        with self._work():
            self._closing = False
            if self._fd < 0:
                self._open()
            if self._size == 0:
                lines = _line(Header(name=self.name, format=FORMAT)) + lines
            try:
                if self._torn and not self._take_back():
                    lines = _CAN + b"\n" + lines
                write_all(self._fd, lines)
                os.fdatasync(self._fd)
                self._check_name()
            except OSError:
                self._take_back()
                raise
            self._size = os.fstat(self._fd).st_size if self._torn else self._size + len(lines)
            self._torn = False

    def _open(self) -> None:
        """The file that was loaded, or a new one if there was none."""
        flags = _APPEND if self._place is not None else _APPEND | os.O_CREAT
        try:
            fd = os.open(self.path, flags, 0o600)
        except FileNotFoundError:
            raise JournalGone(self.path) from None
        if self._place not in (None, _place(fd)):
            os.close(fd)
            raise JournalGone(self.path)
        self._fd, self._place, self._size = fd, _place(fd), os.fstat(fd).st_size
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
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._torn = True
        else:
            self._torn = False
        return not self._torn

    def compaction_due(self, live: int) -> bool:
        """Whether it is worth writing the journal anew, of whose records about `live` bytes of text still count.

        A state that is itself large is not written again with every record: only when half of the file is of no use.
        """
        return self._size > max(COMPACT_SIZE, 2 * self._scale * live)

    def compact(self, snapshot: Iterable[Record], live: int = 0) -> None:
        """Replace the journal by records that give the same state, of which `live` is as in `compaction_due`.

        Makes the folder, too, if it is gone. If the error is of the last step, which syncs the folder, then the new
        file is the journal, and no record is taken into it before the folder could be synced.
        """
        with self._work():
            self._closing = False
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
                line = _line(record)
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
        self._close()
        self._fd, self._place, self._size, self._torn, self._named = fd, _place(fd), size, False, False
        # A message takes more room than its text has bytes: so much is to be expected of what counts later.
        self._scale = max(1.0, size / live) if live > COMPACT_SIZE else 1.0
        sync_dir(folder)
        self._named = True

    @contextlib.contextmanager
    def _work(self) -> Iterator[None]:
        try:
            with self._busy:
                yield
        finally:
            if self._closing:
                self.close()

    def close(self) -> None:
        """Never waits: a thread that hangs in this file closes it when it comes back."""
        self._closing = True
        if self._busy.acquire(blocking=False):
            self._close()
            self._busy.release()

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def _place(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
