"""The notify log: one physical line per event, for `tail -F` and for tools that watch a file.

A hint, not a truth: it is not synced, and the journal is what a restart believes. Its last batch is finished
after a crash from the size that the journal wrote down before it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

ROTATE_SIZE = 1 << 20
KEPT = 3


class NotifyLog:
    """Appends lines to `path`; rotates by rename to `path.1` … `path.3`. Methods block and raise `OSError`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._size = 0

    def offset(self) -> int:
        """The size at which the next batch begins; rotates first if the file is full."""
        self._open()
        if self._size >= ROTATE_SIZE:
            self._rotate()
        return self._size

    def _open(self) -> None:
        """Open the file, or open it again if somebody moved it away."""
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == os.fstat(self._fd).st_ino:
                    return
            self.close()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        self.close()
        for k in range(KEPT, 0, -1):
            older = f"{self.path}.{k - 1}" if k > 1 else self.path
            with contextlib.suppress(FileNotFoundError):
                os.replace(older, f"{self.path}.{k}")
        self._open()

    def append(self, lines: Sequence[str], offset: int) -> None:
        """Append the batch that begins at `offset`; what of it is already there is not written again."""
        if self._fd < 0:
            self._open()
        data = "".join(line + "\n" for line in lines).encode()
        there = max(0, min(len(data), self._size - offset))
        written = there
        while written < len(data):
            done = os.write(self._fd, data[written:])
            written += done
            self._size += done

    def finish(self, lines: Sequence[str], offset: int) -> None:
        """After a crash: complete the last batch, if the file still is what it was."""
        self._open()
        data = "".join(line + "\n" for line in lines).encode()
        with open(self.path, "rb") as file:
            file.seek(offset)
            there = file.read(len(data))
        if offset <= self._size and data.startswith(there):
            self.append(lines, offset)
        else:  # somebody else wrote into it, or truncated it: repeat rather than lose
            self.append(lines, self._size)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
