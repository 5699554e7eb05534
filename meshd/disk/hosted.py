"""Which agents this daemon hosts: what comes back after a restart. And who this installation is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket

import msgspec

from meshd.disk.files import replace
from meshd.disk.formats import refuse_newer
from meshd.errors import ConfigError

FORMAT = 1


class Hosted(msgspec.Struct, omit_defaults=True):
    """One hosted agent: its role, since when (wall seconds), and whether it stays out of the registry."""

    role: str = ""
    since: float = 0.0
    stealth: bool = False


class _File(msgspec.Struct):
    agents: dict[str, Hosted]
    format: int = FORMAT


def load(path: str) -> dict[str, Hosted]:
    """Raises `ConfigError` for a file that cannot be read or is of a newer format; it is not touched."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        refuse_newer(path, data, FORMAT)
        return msgspec.json.decode(data, type=_File).agents
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", f"mend it, or move it away: {path}") from None


def save(path: str, agents: dict[str, Hosted]) -> None:
    replace(path, msgspec.json.encode(_File(agents)))


def instance(path: str, spare: str) -> str:
    """Who holds this state folder's leases: stable across restarts, different on every machine. Raises `OSError`.

    A random seed, so that no two containers or machines made from one image ever pass for one another, as they would
    by any name of machine, user and folder. It is kept at `path`, and at `spare` in a folder of another fate: a state
    folder that was removed does not make a stranger of the daemon, whose leases would hold its names for minutes.
    Beside the seed stands where it was made, because the copy of a home is another daemon, on this machine, too. On
    another one the host's own id, which is mixed in, tells them apart. A seed from before this was written down goes
    on to count where it is.
    """
    seed = _seed(path, path, unbound=True) or _seed(spare, path, unbound=False) or secrets.token_hex(16)
    kept = f"{seed}\n{_real(path)}\n".encode()
    if _read(path) != kept:
        replace(path, kept)
    with contextlib.suppress(OSError):
        if _read(spare) != kept:
            replace(spare, kept)
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            machine = file.read().strip()
    except OSError:
        machine = socket.gethostname()
    return hashlib.sha256(f"{seed} {machine}".encode()).hexdigest()[:32]


def _seed(file: str, path: str, *, unbound: bool) -> str | None:
    """The seed in the file if it is of the state folder of `path`, or, if those count, of no folder."""
    seed, _, made = (_read(file) or b"").decode("utf-8", "surrogateescape").strip().partition("\n")
    return seed if seed and (made == _real(path) or (unbound and not made)) else None


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _real(path: str) -> str:
    return os.path.realpath(path)
