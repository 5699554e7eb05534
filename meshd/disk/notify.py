"""The notify log: one physical line per event, for `tail -F` and for tools that watch a file.

A hint, not a truth: it is not synced, and the journal is what a restart believes. Lines wait here until the disk
takes them, which holds nobody up. The last batches are finished after a crash from the offsets that the journal wrote
down before them, where these and the file agree; where they do not, the last one comes twice rather than never.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Sequence

from meshd.disk.files import OpenFile, make_folders

ROTATE_SIZE = 1 << 20
KEPT = 3
# Bytes of lines that wait, from which on further ones are only counted.
MOST_WAITING = 1 << 18
# A fifo that was put in its place must not block whoever opens it.
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK


class NotifyLog:
    """Appends lines to `path`; rotates by rename to `path.1` … `path.3`.

    `flush` and `finish` block, one at a time, in any thread; the others never do. After an error of `flush` the lines
    still wait, and the next call finds the file again, whatever was done to it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = OpenFile()
        self._place: tuple[int, int] | None = None  # device and inode
        self._size = 0  # as last seen
        self._turn = threading.Lock()  # of whoever writes
        self._lock = threading.Lock()  # of what follows
        self._lines: list[bytes] = []
        self._begun = 0  # bytes of the first line that stand in the file already
        self._bytes = 0  # that wait, in all
        self._left_out = 0

    def offset(self) -> int:
        """The size that the file will have before the next batch, as far as it is known."""
        return (0 if self._size >= ROTATE_SIZE else self._size) + self._bytes

    @property
    def waiting(self) -> bool:
        """Whether there is something to flush."""
        return bool(self._lines)

    def put(self, lines: Sequence[str]) -> None:
        """Let the batch wait for the next `flush`. If too much waits already, the log will only say how many."""
        with self._lock:
            if self._bytes >= MOST_WAITING or self._left_out:
                self._left_out += len(lines)
            else:
                self._wait(line.encode() + b"\n" for line in lines)

    def _wait(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._lines.append(line)
            self._bytes += len(line)

    def flush(self) -> None:
        """Write what waits. Raises `OSError` when the disk takes no more of it.

        Does not wait for a thread that is at it already, which writes what was put meanwhile, too.
        """
        # Looked at again after each turn: whoever put lines during the turn has come in vain.
        while self._lines and self._turn.acquire(blocking=False):
            try:
                with self._file.used():
                    self._write()
            finally:
                self._turn.release()

    def _write(self) -> None:
        self._open()
        if self._size >= ROTATE_SIZE and not self._begun:
            self._rotate()
        while data := self._next():
            self._written(os.write(self._file.fd, data))

    def _next(self) -> bytes:
        with self._lock:
            return b"".join(self._lines)[self._begun :]

    def _written(self, count: int) -> None:
        """So many bytes more of what waits stand in the file."""
        with self._lock:
            self._size += count
            self._skip(count)
            if not self._lines and self._left_out:
                self._wait([b"\xe2\x9a\xa0 %d lines left out: this log could not be written\n" % self._left_out])
                self._left_out = 0

    def _skip(self, count: int) -> None:
        self._bytes -= count
        count += self._begun
        whole = 0
        while whole < len(self._lines) and count >= len(self._lines[whole]):
            count -= len(self._lines[whole])
            whole += 1
        del self._lines[:whole]
        self._begun = count

    def _open(self) -> None:
        """Open the file, or open it again if somebody moved it away or cut it off."""
        found: os.stat_result | None = None
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self.path)
        if self._file.fd < 0 or found is None or (found.st_dev, found.st_ino) != self._place:
            self._file.set(-1)
            make_folders(os.path.dirname(self.path))
            self._file.set(os.open(self.path, _FLAGS, 0o600))
            found = os.fstat(self._file.fd)
        self._is(found)

    def _is(self, found: os.stat_result) -> None:
        """What the file is now. The rest of a line stands only where its beginning does."""
        place = found.st_dev, found.st_ino
        if self._begun and (place != self._place or found.st_size < self._size):
            with self._lock:
                self._bytes += self._begun
                self._begun = 0
        self._place, self._size = place, found.st_size

    def _rotate(self) -> None:
        """A file that cannot be moved away, because of what stands in its place, is written on."""
        for k in range(KEPT, 0, -1):
            older = f"{self.path}.{k - 1}" if k > 1 else self.path
            with contextlib.suppress(OSError):
                os.replace(older, f"{self.path}.{k}")
        self._open()

    def size(self) -> int:
        """Of the file now. Blocks."""
        try:
            return os.stat(self.path).st_size
        except OSError:
            return 0

    def finish(self, lines: Sequence[str], offset: int, *, again: bool = True) -> None:
        """After a crash: complete what began at the offset. A file that is not what it was gets all of it `again`, or
        none. Whatever fails then waits.
        """
        data = "".join(line + "\n" for line in lines).encode()
        there = 0 if again else len(data)
        with self._file.used(), contextlib.suppress(OSError):
            with contextlib.suppress(OSError):
                found = self._find(data, offset)
                there = there if found is None else found
            with self._lock:
                self._wait(line.encode() + b"\n" for line in lines)
                self._skip(there)
            if self._lines:
                self._write()

    def _find(self, data: bytes, offset: int) -> int | None:
        """How many of these bytes stand at the offset; None if somebody else wrote into the file, or truncated it."""
        with open(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            self._is(os.fstat(file.fileno()))
            file.seek(offset)
            there = file.read(len(data))
        return len(there) if offset <= self._size and data.startswith(there) else None

    def close(self) -> None:
        """Never waits: a thread that hangs in the file closes it when it comes back. What waits, waits on."""
        self._file.close()
