"""Which agents this daemon hosts: what comes back after a restart. And who this installation is."""

from __future__ import annotations

import hashlib
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


def instance(path: str) -> str:
    """Who holds this state folder's leases: stable across restarts, different on every machine.

    The host's own id is mixed in, because a home folder that is copied to another machine must not pass for
    this one.
    """
    try:
        with open(path, encoding="ascii") as file:
            seed = file.read().strip()
    except FileNotFoundError:
        seed = secrets.token_hex(16)
        replace(path, seed.encode())
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            machine = file.read().strip()
    except OSError:
        machine = socket.gethostname()
    return hashlib.sha256(f"{seed} {machine}".encode()).hexdigest()[:32]
