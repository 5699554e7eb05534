"""Who is there: leases, the registry, how far each name was read, and `who`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from meshd import __version__
from meshd.core.backoff import Backoff
from meshd.core.message import is_entry_id
from meshd.core.names import Keys, is_id, is_name, new_id
from meshd.core.records import UNKNOWN, Moved, Position
from meshd.core.text import one_line
from meshd.core.wake import RUNGS, STEP, Worked
from meshd.errors import NotAllowed, OutcomeUnknown, StoreDown, StoreError
from meshd.receiving.agent import Agent
from meshd.store.commands import Commands
from meshd.store.scripts import leases

log = logging.getLogger("meshd.presence")

T = TypeVar("T")

LEASE_TTL = 180
RENEW_EVERY = 45.0
READ_TTL = 30 * 86400
REMEMBERED = 7 * 86400  # seconds that `who --all` shows a name that is gone
REGISTRY_PAUSE = 2.0
_HEARD = 1000
_NUMBERS = 1e15  # no time, process or count is greater; JSON has no such bound
# Of a smaller store all is seen at once; a larger one takes a few looks, and costs no more each.
_SCAN_STEPS, _SCAN_COUNT = 4, 2500
_RENEW_BATCH = 100


class _ReadRecord(msgspec.Struct, omit_defaults=True):
    """JSON of the read record: private stream up to `p` (ordinal `i`), group up to `g`, single ids above; by whom."""

    p: str = "0-0"
    i: int = 0
    g: str | None = None
    x: list[str] = []
    h: str = ""


class Taken(NamedTuple):
    """A lease that was acquired. `nonce` is the ping's that told the previous holder, if there was one.

    `asked`: when, in wall seconds; the lease lasts from then on at least.
    """

    read: Moved | None
    group_last: str
    nonce: str | None
    asked: float


class Presence:
    """The names that this daemon holds, as the store and the other daemons see them.

    `lost(agent)` is called when the store says that a lease is not ours (any more): it has run out, or was taken.
    """

    def __init__(self, keys: Keys, commands: Commands, instance: str, lost: Callable[[Agent], None]) -> None:
        self._keys = keys
        self._commands = commands
        self._instance = instance
        self._lost = lost
        self._host = socket.gethostname()
        self._changed_positions: dict[str, Agent] = {}
        self._changed_registry: dict[str, Agent] = {}
        self._wanted = asyncio.Event()
        self._heard: dict[str, None] = {}
        self._scan_cursor: bytes | int = 0

    # --- the lease ---

    def holds(self, agent: Agent) -> bool:
        """Whether its lease is ours and cannot have run out, so that mail may be received.

        By the wall clock, the only one that goes on while a machine or the process sleeps.
        """
        return agent.leased and self._runs(agent)

    def may_hand_out(self, agent: Agent) -> bool:
        """Whether its mail may be given to somebody here.

        While the store is out of reach, what was received is not withheld, unless the lease ran out before: then this
        daemon was away, and another one may have handed out the same.
        """
        return self._runs(agent) and (agent.leased or not self._commands.up.is_set())

    def _runs(self, agent: Agent) -> bool:
        known = time.time() if self._commands.up.is_set() else self._commands.since
        return abs(known - agent.renewed) <= LEASE_TTL

    async def acquire(self, agent: Agent, *, takeover: bool = False) -> Taken:
        """Take the name for this daemon. Raises `NotAllowed` naming the holder, or `StoreError`."""
        now, nonce = time.time(), new_id()
        answer = await self._commands.script(
            leases.host(
                self._keys,
                agent.name,
                instance=self._instance,
                ttl=LEASE_TTL,
                entry=self._entry(agent),
                now=now,
                takeover=takeover,
                nonce=nonce,
            )
        )
        if isinstance(answer, leases.Withheld):
            raise _held(agent.name, answer.registry)
        return Taken(_read_record(answer.read), answer.group_last, nonce if answer.previous else None, now)

    async def read_record(self, name: str) -> Moved | None:
        return _read_record(await self._commands.call("GET", self._keys.read(name)) or b"")

    async def renew(self, agents: Iterable[Agent]) -> None:
        """Renew each lease and registry entry; those that are not ours any more are lost. Raises `StoreError`."""
        held = list(agents)
        answers = await asyncio.gather(*map(self.renewed, held), return_exceptions=True)
        for agent, answer in zip(held, answers, strict=True):
            if answer is False:
                self._lost(agent)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def renewed(self, agent: Agent) -> bool:
        """Renew one; False if it is not ours any more. Raises `StoreError`."""
        asked = time.time()
        try:
            ours = await self._renew(agent, LEASE_TTL)
        except (StoreDown, OutcomeUnknown):
            raise
        except StoreError:
            agent.renewed = asked  # nobody is away who asks and is refused
            raise
        if ours:
            agent.renewed = asked
            agent.wake_waiters()
        return ours

    async def release(self, agent: Agent) -> None:
        """Give the name up, after the last word on how far it was read. Raises `StoreError`."""
        if agent.leased:
            await self.write_position(agent)
        if agent.leased or self._commands.up.is_set():  # of an `acquire` that failed it may not be known whether it did
            await self._renew(agent, 0)
            agent.leased = False

    async def _renew(self, agent: Agent, ttl: int) -> bool:
        entry, now = self._entry(agent), time.time()
        return await self._commands.script(
            leases.renew(self._keys, agent.name, instance=self._instance, ttl=ttl, entry=entry, now=now)
        )

    def _entry(self, agent: Agent) -> bytes:
        """The registry entry: 0.1's four fields and ours. A hidden agent has none."""
        if agent.hosted.stealth:
            return b""
        return msgspec.json.encode(
            {
                "agent": agent.name,
                "role": agent.hosted.role,
                "pid": os.getpid(),
                "ts": time.time(),
                "host": self._host,
                "version": __version__,
                "session": agent.sessions > 0,
                "wake": agent.wakes,
                "worked": agent.waker.summary()["worked"],
                "unread": len(agent.core.inbox.unread),
                "since": agent.hosted.since,
            }
        )

    # --- telling the store what changed ---

    def position_changed(self, agent: Agent) -> None:
        self._changed_positions[agent.name] = agent
        self._wanted.set()

    def registry_changed(self, agent: Agent) -> None:
        self._changed_registry[agent.name] = agent
        self._wanted.set()

    async def run(self) -> None:
        """Write read positions as soon as they change, registry entries at most every two seconds."""
        next_registry = 0.0
        backoff = Backoff()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._commands.up.wait()
            if await self._flush_positions():
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next())
            if not self._changed_registry:
                continue
            pause = next_registry - time.monotonic()
            if pause > 0:
                asyncio.get_running_loop().call_later(pause, self._wanted.set)
                continue
            next_registry = time.monotonic() + REGISTRY_PAUSE
            changed, self._changed_registry = self._changed_registry, {}
            try:
                await self.renew(agent for agent in changed.values() if agent.leased)
            except StoreError as error:
                log.debug("registry not written: %s", error.message)  # the renewal writes it again

    async def _flush_positions(self) -> bool:
        """False if the store did not take them; they are wanted again."""
        changed, self._changed_positions = self._changed_positions, {}
        try:
            held = [agent for agent in changed.values() if agent.leased]
            ours = await asyncio.gather(*map(self.write_position, held))
        except StoreError:
            self._changed_positions = {**changed, **self._changed_positions}
            self._wanted.set()
            return False
        for agent, still in zip(held, ours, strict=True):
            if not still:
                self._lost(agent)
        return True

    async def write_position(self, agent: Agent) -> bool:
        """Tell how far it was read; False if the name is not ours any more. Raises `StoreError`."""
        record = agent.core.read_record()
        value = msgspec.json.encode(
            _ReadRecord(
                p=record.position.at, i=record.position.index, g=record.group, x=record.read_ids, h=self._instance
            )
        )
        return await self._commands.script(
            leases.position(self._keys, agent.name, instance=self._instance, record=value, ttl=READ_TTL)
        )

    # --- who ---

    def heard(self, name: str) -> None:
        """A name was seen in traffic: 0.1 programs have no place in the presence index."""
        if name not in self._heard:
            self._heard[name] = None
            if len(self._heard) > _HEARD:
                del self._heard[next(iter(self._heard))]

    async def who(self, *, everyone: bool = False) -> list[dict[str, Any]]:
        """Registry entries of live agents, by name; with `everyone` also names that are gone (`live` false).

        Costs an index range, a bounded piece of a scan for 0.1 programs, and one MGET, whatever else is stored.
        """
        now = time.time()
        await self._scan()
        floor = now - REMEMBERED if everyone else now
        index = await self._commands.call("ZRANGEBYSCORE", self._keys.presence, f"{floor:.3f}", "+inf", "WITHSCORES")
        pairs = zip(index[::2], index[1::2], strict=True)
        scores = {key.decode("utf-8", "replace"): float(score) for key, score in pairs}
        expires = {name: score for name, score in scores.items() if score < _NUMBERS}
        names = sorted({name for name in [*expires, *self._heard] if is_name(name)})
        if not names:
            return []
        values = await self._commands.call("MGET", *map(self._keys.registry, names))
        found = []
        for name, value in zip(names, values, strict=True):
            if value is not None:
                found.append(_registered(name, value, now))
            elif name in expires and everyone:
                found.append({"agent": name, "live": False, "gone_for": round(max(0.0, now - expires[name]), 1)})
            elif name not in expires:
                self._heard.pop(name, None)
        return found

    async def _scan(self) -> None:
        """Look for registry keys that are in no index: a bounded piece of the store, and on from there next time."""
        for _ in range(_SCAN_STEPS):
            try:
                self._scan_cursor, found = await self._commands.call(
                    "SCAN", self._scan_cursor, "MATCH", self._keys.registry_pattern, "COUNT", _SCAN_COUNT
                )
            except StoreError as error:
                if error.retryable:
                    raise
                return  # an access list may forbid it; the index is enough for our own agents
            for key in found:
                if name := self._keys.registered_name(key):
                    self.heard(name)
            if int(self._scan_cursor) == 0:
                return

    async def housekeeping(self) -> None:
        """Drop names from the index that have been gone for long; go on looking for 0.1's."""
        await self._scan()
        await self._commands.call("ZREMRANGEBYSCORE", self._keys.presence, "-inf", f"{time.time() - REMEMBERED:.3f}")


def _registered(name: str, value: bytes, now: float) -> dict[str, Any]:
    """A registry entry as shown: written by anybody, so every value is checked."""
    entry = _decoded(value, dict[str, Any]) or {}

    def number(key: str) -> float | None:
        found = entry.get(key)
        sound = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < _NUMBERS
        return found if sound else None

    def text(key: str) -> str:
        found = entry.get(key)
        return one_line(found)[:100] if isinstance(found, str) else ""

    ts, wake, worked = number("ts"), entry.get("wake"), entry.get("worked")
    return {
        "agent": name,
        "live": True,
        "role": text("role"),
        "host": text("host"),
        "pid": int(number("pid") or 0) or None,
        "ts": ts,
        "age": round(max(0.0, now - ts), 1) if ts is not None else None,
        "since": number("since"),
        "session": entry.get("session") is True,
        "unread": int(number("unread") or 0) if number("unread") is not None else None,
        "wake": [one_line(w)[:20] for w in wake if isinstance(w, str)] if isinstance(wake, list) else [],
        "worked": _worked(worked),
        "version": text("version") or "0.1",
    }


def _worked(value: object) -> dict[str, Any] | None:
    try:
        worked = msgspec.convert(value, Worked)
    except msgspec.ValidationError:
        return None
    return worked._asdict() if worked.rung in (*RUNGS, STEP) else None


def _read_record(value: bytes) -> Moved | None:
    record = _decoded(value, _ReadRecord)
    if record is None or not (is_entry_id(record.p) and is_entry_id(record.g or "0-0") and record.i >= UNKNOWN):
        return None
    read_ids = [message_id for message_id in record.x if is_id(message_id)]
    return Moved(position=Position(record.p, record.i), group=record.g, read_to=record.p, read_ids=read_ids)


def _decoded(value: bytes, type_: type[T]) -> T | None:
    """JSON from the store, where anybody writes what he likes; None if it is not what it should be."""
    try:
        return msgspec.json.decode(value, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _held(name: str, registry: bytes) -> NotAllowed:
    entry = _registered(name, registry or b"{}", time.time())
    where = f"the daemon on {entry['host']} (pid {entry['pid']})" if entry["host"] else "another daemon"
    return NotAllowed(
        f"{name} is held by {where}",
        f"meshctl register {name} --takeover moves it here",
        holder={"host": entry["host"], "pid": entry["pid"]},
    )
