"""Reading a notify log from where the last reader of that name stopped, across rotations and watches."""

from __future__ import annotations

import contextlib
import os

import msgspec

from meshd.disk.files import replace
from meshd.disk.notify import KEPT

MAX_READ = 1 << 20


class _Place(msgspec.Struct):
    inode: int = 0
    offset: int = 0


class LogCursor:
    """A place in the log at `path`, kept in the file `saved`. Methods block and raise `OSError`."""

    def __init__(self, path: str, saved: str) -> None:
        self.path = path
        self._saved = saved
        self._place = _Place()
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError), open(saved, "rb") as file:
            self._place = msgspec.json.decode(file.read(), type=_Place)

    def is_new(self) -> bool:
        """Whether nobody has read this log before."""
        return not os.path.exists(self._saved)

    def to_end(self) -> None:
        """Skip what stands there now."""
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self.path)
            self._place = _Place(status.st_ino, status.st_size)
        self.save()

    def read(self) -> list[str]:
        """Whole lines behind the place, oldest first, through the rotated files; moves the place."""
        lines: list[str] = []
        for path in self._files():
            try:
                with open(path, "rb") as file:
                    inode = os.fstat(file.fileno()).st_ino
                    start = self._place.offset if inode == self._place.inode else 0
                    file.seek(start)
                    data = file.read(MAX_READ)
            except FileNotFoundError:
                continue
            whole = data[: data.rfind(b"\n") + 1]
            self._place = _Place(inode, start + len(whole))
            lines += whole.decode("utf-8", "replace").splitlines()
            if len(data) == MAX_READ:
                break
        return lines

    def _files(self) -> list[str]:
        """The file of the place and those after it, oldest first; all of them if it was rotated away."""
        names = [*(f"{self.path}.{k}" for k in range(KEPT, 0, -1)), self.path]
        for k, name in enumerate(names):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(name).st_ino == self._place.inode:
                    return names[k:]
        return names

    def save(self) -> None:
        replace(self._saved, msgspec.json.encode(self._place), sync=False)  # a line told twice does no harm
