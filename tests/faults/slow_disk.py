"""A disk that is slow, fails or hangs, for one program: the library `slow_disk.c`, compiled and preloaded."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "slow_disk.c"

needs_a_compiler = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc, and a loader that preloads"
)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where the library is, until this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="slow-disk-")
    command = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", f"{folder.name}/slow_disk.so", str(SOURCE)]
    subprocess.run([*command, "-ldl"], check=True)
    return folder


class SlowDisk:
    """What a program gets to see of its disk. `folder` is for the files by which it is switched and watched.

    `calls` of `fsync,fdatasync,write` on files that match the pattern `files` wait `ms` milliseconds, or with `hangs`
    until `mend` is called, and with `error` (a number of errno) fail after that; all this while `broken`, from the
    start or by `break_`, and only each `every`th time.
    """

    def __init__(
        self,
        folder: Path,
        files: str,
        *,
        calls: str = "fsync,fdatasync",
        ms: int = 0,
        every: int = 1,
        error: int = 0,
        hangs: bool = False,
        broken: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._switch = folder / "broken"
        self._mended = folder / "mended"
        self._log = folder / "calls"
        self.env = {
            "LD_PRELOAD": f"{_folder().name}/slow_disk.so",
            "SLOW_DISK_CALLS": calls,
            "SLOW_DISK_FILES": files,
            "SLOW_DISK_EVERY": str(every),
            "SLOW_DISK_WHILE": str(self._switch),
            "SLOW_DISK_MS": str(ms or ""),
            "SLOW_DISK_HANG": str(self._mended) if hangs else "",
            "SLOW_DISK_ERRNO": str(error or ""),
            "SLOW_DISK_LOG": str(self._log),
        }
        if broken:
            self.break_()

    def break_(self) -> None:
        """From now on."""
        self._mended.unlink(missing_ok=True)
        self._switch.touch()

    def mend(self) -> None:
        """Quick and well again; what hangs goes on."""
        self._switch.unlink(missing_ok=True)
        self._mended.touch()

    def begun(self) -> int:
        """How many calls have met the trouble."""
        return self._count("begin")

    def ended(self) -> int:
        """How many of them are over."""
        return self._count("end")

    def _count(self, what: str) -> int:
        if not self._log.exists():
            return 0
        return sum(line.startswith(what) for line in self._log.read_text().splitlines())
