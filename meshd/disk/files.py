"""Private folders, atomic replacement, and the lock that makes the daemon the only one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import threading
from collections.abc import Iterator

from meshd.errors import AlreadyRunning, ConfigError, Full


def private_dir(path: str) -> str:
    """Make the folder, and those above it, with mode 0700 if it is missing; refuse one that others can put files into.

    A folder that was there keeps its mode: it may be somebody's choice, or /tmp. Raises `ConfigError` with the
    path, the reason and what to do next.
    """
    try:
        make_folders(path)
        status = os.stat(path)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {path}: {error.strerror}", f"make it writable for this user: {path}"
        ) from None
    if read_only(path):
        raise ConfigError(f"the folder {path} is on a disk that is mounted read-only", "meshctl doctor names the mount")
    if status.st_uid not in (os.getuid(), 0) or not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"the folder {path} is not writable", f"chown it to this user, or chmod u+wx {path}")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        raise ConfigError(f"others may write into the folder {path}", f"chmod go-w {path}")
    return path


def read_only(path: str) -> bool:
    """Whether nothing can be written there because of how its disk is mounted."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def replace(path: str, data: bytes, *, sync: bool = True) -> None:
    """Put `data` at `path`, whole or not at all, and on the disk with `sync`. Raises `OSError`."""
    folder = os.path.dirname(path)
    fd, temporary = tempfile.mkstemp(prefix=os.path.basename(path) + ".", suffix=".new", dir=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if sync:
        sync_dir(folder)


def write_all(fd: int, data: bytes) -> None:
    """Write until nothing is left: a disk that fills up takes a part of it. Raises `OSError`."""
    written = 0
    while written < len(data):
        written += os.write(fd, data[written:] if written else data)


def refusal(error: OSError, path: str, doing: str = "write") -> Full:
    """What is said when the disk refuses that, there or where the error says."""
    where = os.path.dirname(error.filename or path)
    next_ = "free space there, or make it writable" if doing == "write" else "make it readable"
    return Full(f"cannot {doing} in {where}: {error.strerror or error}", f"{next_}: {where}")


def make_folders(path: str) -> None:
    """Make the folder, and those above it, for this user alone, whatever the umask. Raises `OSError`.

    The umask itself is the whole process's: a thread must leave it alone.
    """
    if not os.path.isdir(path):
        make_folders(os.path.dirname(path))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):  # nobody else has made it meanwhile: something is in the way
                raise


def sync_dir(folder: str) -> None:
    """Let the names in the folder survive a power failure. Raises `OSError`."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class OpenFile:
    """A file descriptor that one thread at a time works with, and that may be closed from outside at any moment."""

    def __init__(self) -> None:
        self.fd = -1
        self._busy = threading.Lock()
        self._closing = False

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """For as long as this lasts nobody else has it, and it is not closed. Whoever uses it may open it again."""
        with self._busy:
            self._closing = False
            try:
                yield
            finally:
                if self._closing:
                    self.set(-1)

    def set(self, fd: int) -> None:
        """Go on with this one; the one before is closed. For the user."""
        before, self.fd = self.fd, fd
        if before >= 0:
            os.close(before)

    def place(self) -> tuple[int, int]:
        """Device and inode, by which a path can be told to lead here. For the user."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Never waits: a thread that hangs in the file closes it when it comes back."""
        self._closing = True
        if self._busy.acquire(blocking=False):
            self.set(-1)
            self._busy.release()


def holder(path: str) -> int | None:
    """The pid of the process that holds the `Lock` at the path; None if nobody does. Takes no lock itself.

    A lock that was tried, and let go, could turn away a daemon that starts in this moment. So this looks whether the
    process that is named there has the file open; where there is no /proc, whether there is such a process.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            said = file.read(32).strip()
            wanted = os.fstat(file.fileno())
        pid = int(said)
        if not os.path.isdir("/proc/self"):
            os.kill(pid, 0)
            return pid
        fds = os.listdir(f"/proc/{pid}/fd")
    except (OSError, ValueError):
        return None
    for fd in fds:
        with contextlib.suppress(OSError):  # closed since it was listed
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), wanted):
                return pid
    return None


class Lock:
    """An exclusive flock that lives as long as the process, whatever kills it. The file holds the pid."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Raises `AlreadyRunning` naming the holder, or `ConfigError` if the file cannot be made."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot open the lock {self.path}: {error.strerror}", "check its owner") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            raise AlreadyRunning(
                f"meshd is already running (pid {holder or 'unknown'})",
                "meshctl status",
                pid=int(holder) if holder.isdigit() else None,
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        # The file stays: removing it would let two processes lock two files of one name.
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
