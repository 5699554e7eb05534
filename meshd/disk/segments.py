"""Unread mail that is not kept in memory: a file for each segment, beside the journal that tells of it.

Written once, as a journal is, a message a line, and synced before the journal tells of it; removed after the journal
has all of it again. A line that is damaged costs the one message.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from meshd.core.message import Message
from meshd.core.records import FORMAT, Header, Segment, Unread, decode
from meshd.disk.files import make_folders, sync_dir, write_all
from meshd.disk.journal import body_of, line_of
from meshd.disk.pace import Pace

FOLDER = ".unread"  # in the place of the journal's ending
_ENDING = ".segment"
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_WRITE_SIZE = 1 << 18


class Segments:
    """The segments of one agent. Methods block, and raise `OSError`.

    One method runs at a time, in any thread.
    """

    def __init__(self, journal: str) -> None:
        self.folder = journal.removesuffix(".journal") + FOLDER
        self._name = os.path.basename(journal).removesuffix(".journal")

    def path(self, number: int) -> str:
        return os.path.join(self.folder, f"{number:08d}{_ENDING}")

    def write(self, number: int, messages: Sequence[Message]) -> None:
        """All of them, synced. What a failure leaves of the file no record tells of."""
        make_folders(self.folder)
        path, pace = self.path(number), Pace()
        lines = [line_of(Header(name=self._name, format=FORMAT))]
        size = 0
        fd = os.open(path, _FLAGS, 0o600)
        try:
            for message in messages:
                lines.append(line_of(Unread(messages=[message])))
                size += len(lines[-1])
                if size >= _WRITE_SIZE:
                    write_all(fd, b"".join(lines))
                    lines, size = [], 0
                pace()
            write_all(fd, b"".join(lines))
            os.fsync(fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        finally:
            os.close(fd)
        sync_dir(self.folder)

    def read(self, number: int) -> list[Message]:
        """Those of its messages that are there and whole, in order: none if the file is gone."""
        return list(self._messages(number))

    def _messages(self, number: int) -> Iterator[Message]:
        pace = Pace()
        try:
            with open(self.path(number), "rb") as file:
                for line in file:
                    pace()
                    yield from _unread(line)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EIO):
                raise  # what is there cannot be read now: that is no loss

    def find(self, numbers: Iterable[int], message_id: str) -> Message | None:
        """The message of that id, if one of these segments has it."""
        wanted = b'"id":' + msgspec.json.encode(message_id)
        for number in numbers:
            with contextlib.suppress(FileNotFoundError), open(self.path(number), "rb") as file:
                data = file.read()
                begin = data.find(wanted)
                line = data[data.rfind(b"\n", 0, begin) + 1 : data.find(b"\n", begin) + 1] if begin >= 0 else b""
                for message in _unread(line):
                    if message.id == message_id:
                        return message
        return None

    def drop(self, numbers: Iterable[int]) -> None:
        """These are not needed any more. One that cannot be removed is, at the next start."""
        for number in numbers:
            with contextlib.suppress(OSError):
                os.unlink(self.path(number))
        with contextlib.suppress(OSError):  # it has others
            os.rmdir(self.folder)

    def put_aside(self, numbers: Iterable[int]) -> None:
        """Damaged ones, for whoever wants to look: beside the journal, as damaged ones of those."""
        for number in numbers:
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path(number), f"{self.folder}-{number}.damaged-{int(time.time())}")
        self.drop([])

    def numbers(self) -> list[int]:
        """Of all files that are there, in order."""
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(int(name.removesuffix(_ENDING)) for name in names if name.removesuffix(_ENDING).isdecimal())


class SegmentHealth(NamedTuple):
    """Of segments that somebody looks at from outside: bytes, and how many messages each lacks, by its number."""

    size: int
    missing: dict[int, int]


def look(journal: str, told: Iterable[Segment]) -> SegmentHealth:
    """Read all segments that the journal tells of, and leave them as they are. Raises `OSError`."""
    segments = Segments(journal)
    size, missing = 0, {}
    for segment in told:
        found = 0
        with contextlib.suppress(FileNotFoundError), open(segments.path(segment.number), "rb") as file:
            size += os.fstat(file.fileno()).st_size
            found = sum(body_of(line) is not None for line in file) - 1  # the first line is the header
        if found < segment.count:
            missing[segment.number] = segment.count - max(0, found)
    return SegmentHealth(size, missing)


def _unread(line: bytes) -> Sequence[Message]:
    body = body_of(line)
    if body is None:
        return ()
    record = decode(body)
    return record.messages if isinstance(record, Unread) else ()
