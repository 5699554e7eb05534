"""What was sent lately, in memory that outlives the daemon: two mapped files that are written in turn.

The store has what was sent; this is for a store that has lost the end of it, and a daemon that was killed meanwhile. So
nothing is synced, a record costs no system call, and the files belong where memory is (the folder of the socket), in
which no write waits for a disk. After a fresh start of the machine they are gone, and nothing is missed but this.

A file is a mark and frames: length and CRC-32 in four bytes each, then so many bytes. The first frame is the header
of whoever writes, with its turn before it. What comes behind the last whole frame is what a kill has cut off.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable

SEGMENT = 16 << 20  # bytes of one of the two files at most
SPAN = 240.0  # seconds after which the other one is begun, so that each record is kept for as long at least
_STEP = 1 << 20  # bytes of memory that are asked for at a time
_MARK = b"mesh\x00sent"
_FRAME = struct.Struct("<II")
_TURN = struct.Struct("<Q")


class _Segment:
    """One of the two files, empty until `begin` or `load`."""

    def __init__(self, path: str, size: int) -> None:
        self._size = size
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # Bytes from the start that have memory: it is asked for from the start on.
            self._backed = min(size, os.fstat(self._fd).st_blocks * 512)
            os.ftruncate(self._fd, size)
            self._map = mmap.mmap(self._fd, size)
        except BaseException:
            os.close(self._fd)
            raise
        self._end = 0
        self.turn = -1
        self.header = b""

    def load(self) -> list[bytes]:
        """Its records. Behind them it goes on."""
        frames: list[bytes] = []
        if self._map[: len(_MARK)] != _MARK:
            return frames
        self._end = len(_MARK)
        while self._end + _FRAME.size <= self._size:
            length, crc = _FRAME.unpack_from(self._map, self._end)
            start = self._end + _FRAME.size
            body = self._map[start : start + length]
            if not length or len(body) < length or zlib.crc32(body) != crc:
                break
            frames.append(body)
            self._end = start + length
        if frames and len(frames[0]) >= _TURN.size:
            (self.turn,) = _TURN.unpack_from(frames[0])
            self.header = frames[0][_TURN.size :]
            return frames[1:]
        return []

    def clear(self) -> None:
        self.turn, self.header, self._backed, self._end = -1, b"", 0, 0
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, self._size)

    def begin(self, turn: int, header: bytes) -> None:
        """Empty, with this header. Raises `OSError` if there is no memory for it."""
        self.clear()
        self._end = len(_MARK)
        self._back(self._end)
        self._map[: self._end] = _MARK
        self.append(_TURN.pack(turn) + header)
        self.turn, self.header = turn, header

    def has_room(self, body: bytes) -> bool:
        return self._end + _FRAME.size + len(body) <= self._size

    def append(self, body: bytes) -> None:
        """Raises `OSError` if there is no memory for it."""
        end = self._end + _FRAME.size + len(body)
        if end > self._backed:
            self._back(end)
        self._map[self._end : end] = _FRAME.pack(len(body), zlib.crc32(body)) + body
        self._end = end

    def _back(self, end: int) -> None:
        """Ask for the memory: writing where there is none would end the process."""
        more = min(max(end - self._backed, _STEP), self._size - self._backed)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._fd, self._backed, more)
        else:
            os.pwrite(self._fd, bytes(more), self._backed)
        self._backed += more

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)


class SentLog:
    """Records of bytes, each kept for `SPAN` seconds at least unless there are too many; and one header for them all.

    `path`: of the two files, without their endings.
    """

    def __init__(self, path: str, segment: int = SEGMENT) -> None:
        self._path = path
        self._segment = segment
        self._segments: list[_Segment] = []  # the last one is written
        self._turned = float("-inf")  # monotonic seconds

    def open(self) -> tuple[bytes, list[bytes]]:
        """The newest header, empty if there is none, and the records, oldest first. Raises `OSError`."""
        with contextlib.ExitStack() as opened:
            for ending in (".sent-0", ".sent-1"):
                segment = _Segment(self._path + ending, self._segment)
                opened.callback(segment.close)
                self._segments.append(segment)
            opened.pop_all()
        found = sorted(((segment.load(), segment) for segment in self._segments), key=lambda pair: pair[1].turn)
        self._segments = [segment for _, segment in found]
        newest = self._segments[-1]
        if newest.turn >= 0:
            self._turned = time.monotonic()
        return newest.header, [record for records, _ in found for record in records]

    def append(self, record: bytes, header: Callable[[], bytes]) -> None:
        """Keep it. `header` is asked for when a file is begun. Raises `OSError` if there is no memory for it."""
        now, newest = time.monotonic(), self._segments[-1]
        if newest.turn < 0 or now - self._turned > SPAN or not newest.has_room(record):
            if newest.turn >= 0:  # else it could not be begun before: the other one is still of use
                self._segments.reverse()
            self._segments[-1].begin(1 + max(segment.turn for segment in self._segments), header())
            self._turned = now
        self._segments[-1].append(record)

    def forget(self) -> None:
        """Nothing is kept any more; the next record begins anew. Raises `OSError`."""
        for segment in self._segments:
            segment.clear()
        self._turned = float("-inf")

    def records(self) -> list[bytes]:
        """All that are kept, oldest first."""
        return [record for segment in self._segments if segment.turn >= 0 for record in segment.load()]

    def close(self) -> None:
        for segment in self._segments:
            segment.close()
        self._segments = []
