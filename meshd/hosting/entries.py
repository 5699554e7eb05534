"""Registry entries: ours as they are written, and everybody's as they are read, each value checked."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from meshd import __version__
from meshd.core.clock import Stored
from meshd.core.text import one_line
from meshd.core.wake import RUNGS, STEP, Worked
from meshd.errors import NotAllowed
from meshd.receiving.agent import Agent
from meshd.system import clock

T = TypeVar("T")

_KEPT = 1 << 10  # bytes of an entry that is remembered; ours have some hundred
_NUMBERS = 1e15  # no time, process or count is greater; JSON has no such bound
_HOST = one_line(socket.gethostname())


class Shown(msgspec.Struct, kw_only=True, gc=False):
    """An agent as it is shown: a struct, because a thousand of them at once are felt. Times are seconds since 1970.

    `ts`: when that was written, by the store's clock if a daemon of ours did. `age`: seconds since then. `here`: it is
    hosted by this daemon.
    """

    agent: str
    live: bool = True
    role: str
    host: str
    pid: int | None
    ts: float | None
    since: float | None
    session: bool
    unread: int | None
    wake: list[str]
    worked: dict[str, Any] | None
    version: str
    age: float | None = None
    here: bool | msgspec.UnsetType = msgspec.UNSET


class Gone(msgspec.Struct, kw_only=True, gc=False):
    """A name that nobody holds, for so many seconds."""

    agent: str
    live: bool = False
    gone_for: float


def entry(agent: Agent, now: Stored) -> bytes:
    """The registry entry of an agent of ours: 0.1's four fields and more. A hidden one has none."""
    if agent.hosted.stealth:
        return b""
    return msgspec.json.encode(
        {
            "agent": agent.name,
            "role": agent.hosted.role,
            "pid": os.getpid(),
            "ts": now,
            "host": _HOST,
            "version": __version__,
            "session": agent.sessions > 0,
            "wake": agent.wakes,
            "worked": agent.waker.worked,
            "unread": len(agent.core.inbox.unread),
            "since": _since(agent, now),
        }
    )


def _since(agent: Agent, now: Stored) -> float:
    """Since when it is hosted, as the clock shows it that shows `now`."""
    return now - (clock.wall() - agent.hosted.since)


def here(agents: Iterable[Agent], now: Stored) -> list[Shown]:
    """Agents of ours as shown: as they are at `now`, and not as they were registered."""
    pid = os.getpid()
    return [
        Shown(
            agent=agent.name,
            role=agent.hosted.role,
            host=_HOST,
            pid=pid,
            ts=now,
            since=_since(agent, now),
            session=agent.sessions > 0,
            unread=len(agent.core.inbox.unread),
            wake=agent.wakes,
            worked=agent.waker.worked,
            version=__version__,
            age=0.0,
            here=True,
        )
        for agent in agents
    ]


class Entries:
    """Registry entries as shown. Most of them are what they were when somebody asked last, and are read once."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[bytes, Shown]] = {}

    def shown(self, found: Iterable[tuple[str, bytes]], now: Stored) -> list[Shown]:
        """Those of these names, JSON as somebody wrote it, at `now`."""
        before, self._read = self._read, {}
        entries = []
        for name, value in found:
            known = before.get(name)
            if known is None or known[0] != value:
                known = value, registered(name, value)
            if len(value) <= _KEPT:
                self._read[name] = known
            ts = known[1].ts
            entries.append(replace(known[1], age=None if ts is None else round(max(0.0, now - ts), 1)))
        return entries


def registered(name: str, value: bytes) -> Shown:
    """A registry entry: written by anybody, so every value is checked."""
    fields = decoded(value, dict[str, Any]) or {}

    def number(key: str) -> float | None:
        found = fields.get(key)
        sound = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < _NUMBERS
        return found if sound else None

    def text(key: str) -> str:
        found = fields.get(key)
        return one_line(found)[:100] if isinstance(found, str) else ""

    wake, worked = fields.get("wake"), fields.get("worked")
    return Shown(
        agent=name,
        role=text("role"),
        host=text("host"),
        pid=int(number("pid") or 0) or None,
        ts=number("ts"),
        since=number("since"),
        session=fields.get("session") is True,
        unread=int(number("unread") or 0) if number("unread") is not None else None,
        wake=[one_line(w)[:20] for w in wake if isinstance(w, str)] if isinstance(wake, list) else [],
        worked=_worked(worked),
        version=text("version") or "0.1",
    )


def _worked(value: object) -> dict[str, Any] | None:
    try:
        worked = msgspec.convert(value, Worked)
    except msgspec.ValidationError:
        return None
    return worked._asdict() if worked.rung in (*RUNGS, STEP) else None


def decoded(value: bytes, type_: type[T]) -> T | None:
    """JSON from the store, where anybody writes what he likes; None if it is not what it should be."""
    try:
        return msgspec.json.decode(value, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def held(name: str, registry: bytes) -> NotAllowed:
    """The error that names who holds a name, by its registry entry or nothing."""
    known = registered(name, registry or b"{}")
    where = f"the daemon on {known.host} (pid {known.pid})" if known.host else "another daemon"
    return NotAllowed(
        f"{name} is held by {where}",
        f"meshctl register {name} --takeover moves it here",
        holder={"host": known.host, "pid": known.pid},
    )
