"""The files of a client's configuration: read, copied aside, and replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import time
from typing import ClassVar

from meshd.core.text import one_line
from meshd.disk.files import replace
from meshd.errors import MeshError


class NotChanged(MeshError):
    """A step could not be carried out. Its file is as it was; the steps before it were said."""

    kind: ClassVar[str] = "not_changed"


def read(path: str) -> bytes | None:
    """What is in the file, None if there is none. Raises `NotChanged` if it cannot be read, or is no file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise NotChanged(f"{path} is not a file; it was left as it is", f"move {path} away, then repeat")
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotChanged(f"cannot read {path}: {error.strerror}", f"make {path} readable, then repeat") from None


def write(path: str, data: bytes, before: bytes | None, *, private: bool) -> None:
    """Put `data` in the place of `before`, whole or not at all. Raises `NotChanged`.

    A link stays one. Another program that writes the file between this look and the rename loses what it wrote:
    the clients take no lock that we could take, too.
    """
    real = os.path.realpath(path)
    try:
        os.makedirs(os.path.dirname(real), mode=0o700 if private else 0o777, exist_ok=True)
        status = os.stat(real) if before is not None else None
        if status is not None and not status.st_mode & stat.S_IWUSR:
            raise NotChanged(f"{path} is read-only; it was left as it is", f"chmod u+w {path}")
        if read(path) != before:
            raise NotChanged(f"{path} has just been changed by another program", "repeat the command")
        replace(real, data)
        if status is not None:
            os.chmod(real, stat.S_IMODE(status.st_mode))
            if status.st_uid != os.getuid():
                with contextlib.suppress(PermissionError):  # only root can give a file away
                    os.chown(real, status.st_uid, status.st_gid)
        elif not private:
            os.chmod(real, 0o666 & ~_umask())
    except OSError as error:
        raise cannot_write(path, error) from None


def back_up(path: str, data: bytes) -> str:
    """A copy beside the file, as private as the file is, under a name of its own. Its path."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for k in range(1, 1000):
        copy = f"{path}.{stamp}{f'-{k}' if k > 1 else ''}.bak"
        try:
            fd = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode & 0o600)
        except FileExistsError:
            continue
        except OSError as error:
            raise cannot_write(copy, error) from None
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), mode)
        except BaseException as error:
            os.unlink(copy)
            if isinstance(error, OSError):
                raise cannot_write(copy, error) from None
            raise
        return copy
    raise NotChanged(f"too many copies of {path} made within a second", "repeat the command")


def cannot_write(path: str, error: OSError) -> NotChanged:
    folder = os.path.dirname(path)
    return NotChanged(
        f"cannot write {one_line(path)}: {error.strerror}; it was left as it is",
        f"make room and rights for it: df -h {shlex.quote(folder)}; ls -ld {shlex.quote(folder)}",
    )


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
