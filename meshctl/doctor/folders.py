"""The folders: can the daemon use them, is there room, and how long does a sync take."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator

from meshctl.doctor.finding import Finding, quote
from meshd import paths
from meshd.disk.files import read_only

AREA = "disk"
ROOM = 50 << 20  # bytes
SLOW = 0.1  # seconds
_SYNCS = 3


def check() -> Iterator[Finding]:
    state = paths.state_dir()
    for what, path in (
        ("state", state),
        ("cache", paths.cache_dir()),
        ("socket", os.path.dirname(paths.socket_path())),
    ):
        found = _folder(what, path) or _room(what, path) or Finding("ok", AREA, f"{what} folder {path}")
        yield found
        if path == state and found.level != "error" and os.path.isdir(state):
            yield from _sync(state)


def _existing(path: str) -> str:
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _folder(what: str, path: str) -> Finding | None:
    existing = _existing(path)
    there = quote(existing)
    if not os.path.isdir(existing):
        return Finding("error", AREA, f"the {what} folder {path}: {existing} is no folder", f"mv {there} {there}.old")
    status = os.stat(existing)
    if read_only(existing):
        mount = _mount_of(os.path.realpath(existing))
        what = f"the {what} folder {path} is not writable: {mount} is mounted read-only"
        return Finding("error", AREA, what, f"sudo mount -o remount,rw {quote(mount)}")
    if status.st_uid not in (os.getuid(), 0) and existing == path:
        return Finding("error", AREA, f"the {what} folder {path} is another user's", f'sudo chown "$USER" {there}')
    if not os.access(existing, os.W_OK | os.X_OK):
        ours = status.st_uid == os.getuid()
        mend = f"chmod u+rwx {there}" if ours else f'sudo chown "$USER" {there}'
        return Finding("error", AREA, f"the {what} folder {path} is not writable", mend)
    if existing == path and status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        # The daemon does not start with such a folder.
        return Finding("error", AREA, f"others may write into the {what} folder {path}", f"chmod go-w {there}")
    return None


def _mount_of(path: str) -> str:
    """The mount point that the path is below; one that binds a folder of the same disk, too, where /proc tells."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            escaped = [line.split()[4] for line in file]
    except OSError:
        while not os.path.ismount(path):
            path = os.path.dirname(path)
        return path
    points = [os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), point)) for point in escaped]
    return max((point for point in points if os.path.join(path, "").startswith(os.path.join(point, ""))), key=len)


def _room(what: str, path: str) -> Finding | None:
    existing = _existing(path)
    disk = os.statvfs(existing)
    free = disk.f_bavail * disk.f_frsize
    look = f"df -h {quote(existing)}  # make room there"
    if free == 0:
        return Finding("error", AREA, f"the disk of the {what} folder {path} is full", look)
    if disk.f_files and not disk.f_favail:
        return Finding("error", AREA, f"the disk of the {what} folder {path} takes no more files", f"df -i {path}")
    if free < ROOM:
        left = f"{free >> 20} MiB" if free >> 20 else f"{free >> 10} KiB"
        return Finding("warning", AREA, f"only {left} are free for the {what} folder {path}", look)
    return None


def _sync(folder: str) -> Iterator[Finding]:
    """Each message is synced before anybody is told of it. The file has no name, and is gone when it is closed."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            longest = 0.0
            for _ in range(_SYNCS):
                file.write(b"x" * 4096)
                file.flush()
                began = time.monotonic()
                os.fsync(file.fileno())
                longest = max(longest, time.monotonic() - began)
    except OSError as error:
        what = f"cannot write in {folder}: {error.strerror}"
        yield Finding("error", AREA, what, f"df -h {quote(folder)}  # make room there")
        return
    took = f"a sync to the disk of {folder} takes {longest * 1000:.0f} ms"
    if longest > SLOW:
        yield Finding("warning", AREA, f"{took}: every message waits for one", "iostat -x 1 5  # who keeps it busy?")
    else:
        yield Finding("ok", AREA, took)
