"""The names of MCP sessions: what a session may be called, and which one comes back to a client's conversation."""

from __future__ import annotations

import logging
import os
import re

import msgspec

from meshd.core.names import is_name
from meshd.disk.files import replace

log = logging.getLogger("meshd.sessions")

FORMAT = 1
REMEMBERED = 1000
MAX_SUFFIX = 99
DEFAULT_NAME = "agent"


class _File(msgspec.Struct):
    names: dict[str, str]
    format: int = FORMAT


class SessionNames:
    """Names by the client's own id of a conversation, in a file. One that cannot be read costs names, nothing else."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names, self._writable = _load(path)

    def of(self, client_session: str | None) -> str | None:
        """The name that this conversation had before."""
        return self._names.get(client_session or "")

    def remember(self, client_session: str | None, name: str) -> None:
        """The conversation goes by this name now."""
        if client_session is None or self._names.get(client_session) == name or not self._writable:
            return
        self._names.pop(client_session, None)
        self._names[client_session] = name
        while len(self._names) > REMEMBERED:
            del self._names[next(iter(self._names))]
        try:
            replace(self._path, msgspec.json.encode(_File(self._names)), sync=False)
        except OSError as error:
            log.warning("names of sessions were not written: %s", error)


def _load(path: str) -> tuple[dict[str, str], bool]:
    """Names by the client's session id, and whether the file is ours to write: one of a newer format is not."""
    try:
        with open(path, "rb") as file:
            found = msgspec.json.decode(file.read(), type=_File)
    except FileNotFoundError:
        return {}, True
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("names of sessions are forgotten: %s: %s", path, error)
        return {}, True
    return (found.names, True) if found.format <= FORMAT else ({}, False)


def first_name(*candidates: str | None) -> str:
    """The first of them that is a name."""
    return next((name for name in candidates if name and is_name(name)), DEFAULT_NAME)


def from_folder(project: str | None) -> str | None:
    """A name from a project's folder: its last part, with what no name may contain as dashes."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename((project or "").rstrip("/"))).strip("-")
    return base[:60] or None


def variants(name: str) -> list[str]:
    """The name, then the same with numbers for further sessions."""
    return [name, *(f"{name[:60]}-{k}" for k in range(2, MAX_SUFFIX))]
