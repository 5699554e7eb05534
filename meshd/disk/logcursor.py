"""Reading a notify log from where the last reader of that name stopped, across rotations and watches."""

from __future__ import annotations

import contextlib
import os
import zlib
from typing import BinaryIO

import msgspec

from meshd.disk.files import replace
from meshd.disk.formats import refuse_newer
from meshd.disk.notify import KEPT

FORMAT = 1
MAX_READ = 1 << 20
_MARK = 64


class _Place(msgspec.Struct):
    """A file and an offset. `mark` is the CRC-32 of the bytes before it: an inode is used again for another file."""

    inode: int = 0
    offset: int = 0
    mark: int = 0
    format: int = FORMAT

    @classmethod
    def in_file(cls, file: BinaryIO, offset: int) -> _Place:
        start = max(0, offset - _MARK)
        file.seek(start)
        return cls(os.fstat(file.fileno()).st_ino, offset, zlib.crc32(file.read(offset - start)))


class LogCursor:
    """A place in the log at `path`, kept in the file `saved`. Methods block and raise `OSError`.

    Raises `ConfigError` for a `saved` of a newer format, which is not touched; a damaged one is forgotten.
    """

    def __init__(self, path: str, saved: str) -> None:
        self.path = path
        self._saved = saved
        self._place = _Place()
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError), open(saved, "rb") as file:
            data = file.read()
            refuse_newer(saved, data, FORMAT)
            self._place = msgspec.json.decode(data, type=_Place)

    def is_new(self) -> bool:
        """Whether nobody has read this log before."""
        return not os.path.exists(self._saved)

    def to_end(self) -> None:
        """Skip what stands there now."""
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            self._place = _Place.in_file(file, os.fstat(file.fileno()).st_size)
        self.save()

    def read(self) -> list[str]:
        """Whole lines behind the place, oldest first, through the rotated files; moves the place."""
        lines: list[str] = []
        for path in self._files():
            try:
                with open(path, "rb") as file:
                    start = self._place.offset if self._is_in(file) else 0
                    file.seek(start)
                    data = file.read(MAX_READ)
                    whole = data[: data.rfind(b"\n") + 1]
                    self._place = _Place.in_file(file, start + len(whole))
            except FileNotFoundError:
                continue
            lines += whole.decode("utf-8", "replace").splitlines()
            if len(data) == MAX_READ:
                break
        return lines

    def _files(self) -> list[str]:
        """The file of the place and those after it, oldest first; all of them if it was rotated away."""
        names = [*(f"{self.path}.{k}" for k in range(KEPT, 0, -1)), self.path]
        for k, name in enumerate(names):
            with contextlib.suppress(FileNotFoundError), open(name, "rb") as file:
                if self._is_in(file):
                    return names[k:]
        return names

    def _is_in(self, file: BinaryIO) -> bool:
        return _Place.in_file(file, self._place.offset) == self._place

    def save(self) -> None:
        replace(self._saved, msgspec.json.encode(self._place), sync=False)  # a line told twice does no harm
