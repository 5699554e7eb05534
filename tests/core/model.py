"""A stream of the store in plain Python, and an agent whose disk outlives its memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from meshd.core import records, spilling
from meshd.core.agent import AgentCore
from meshd.core.clock import Wall
from meshd.core.effects import CheckLease, Commit, Drop, Effect, Load, Quarantine, Spill
from meshd.core.inbox import StreamInfo
from meshd.core.message import Message, decode, entry_key
from meshd.core.names import Keys
from meshd.core.queue import BOUNDS, Bounds
from meshd.core.records import Batch, Record, Segment

KEYS = Keys("mesh")
NOW = Wall(1_700_000_000.0)
LIMIT = 64
MAXLEN = 12
READ_COUNT = 4  # as in the daemon, less than the stream's bound

Fields = list[bytes]


def fields(**values: str | bytes) -> Fields:
    """The flat fields of an entry. A field `from` is given as `from_`."""
    flat: Fields = []
    for name, value in values.items():
        flat += [name.rstrip("_").encode(), value.encode() if isinstance(value, str) else value]
    return flat


class Stream:
    """XADD with MAXLEN, XREAD and XINFO STREAM. Ids grow for ever: the clock does not go back."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Fields]] = []
        self.added = 0
        self.last = "0-0"
        self._clock = itertools.count(1_700_000_000_000)

    def add(self, flat: Fields, maxlen: int = MAXLEN) -> list[str]:
        """Append an entry; the ids that trimming took."""
        self.last = f"{next(self._clock)}-0"
        self.entries.append((self.last, flat))
        self.added += 1
        gone = [at for at, _ in self.entries[:-maxlen]]
        del self.entries[:-maxlen]
        return gone

    @property
    def info(self) -> StreamInfo:
        return StreamInfo(len(self.entries), self.added, self.last)

    def read(self, cursor: str, count: int) -> list[tuple[str, Fields]]:
        after = entry_key(cursor)
        return [entry for entry in self.entries if entry_key(entry[0]) > after][:count]

    def save(self) -> Callable[[], list[str]]:
        """What restores this state, as a failover to a lagging replica does; it returns the ids that are gone."""
        entries, added, last = list(self.entries), self.added, self.last

        def restore() -> list[str]:
            kept = {at for at, _ in entries}
            gone = [at for at, _ in self.entries if at not in kept]
            self.entries, self.added, self.last = list(entries), added, last
            return gone

        return restore


class Crash(Exception):
    """The process is gone; what was written stays."""


class Machine:
    """An agent that executes effects as the daemon does, and can lose its memory at any boundary.

    `boundaries` counts down; at zero the process dies. Records are kept encoded, as on a disk; `segments` by number.
    """

    def __init__(self, name: str = "bob", bounds: Bounds = BOUNDS) -> None:
        self.name = name
        self.bounds = bounds
        self.disk: list[bytes] = []
        self.segments: dict[int, list[bytes]] = {}
        self.core = AgentCore(name, KEYS, bounds)
        self.boundaries: int | None = None
        self.done: list[Effect] = []
        self.lines: list[str] = []
        self.probe = True
        self.caught_up = False
        self.meanwhile: Callable[[], None] = lambda: None  # what others do at each boundary

    # --- the executor ---

    def execute(self, decide: Callable[[], list[Effect]], crash: int | None = None) -> bool:
        """Whether it came through. Dies at the `crash`-th boundary, and is then a fresh process."""
        self.boundaries = crash
        try:
            for effect in decide():
                self._carry_out(effect)
            self._boundary()
        except Crash:
            self.restart()
            return False
        finally:
            self.boundaries = None
        return True

    def _carry_out(self, effect: Effect) -> None:
        self._boundary()
        match effect:
            case Commit(decided):
                self._commit(decided)
            case Spill(segment, messages):
                self.segments[segment.number] = []
                for message in messages:
                    self._boundary()
                    self.segments[segment.number].append(records.encode(records.Unread(messages=[message])))
            case Load(segment):
                for follows in spilling.loaded(self.core.inbox, segment, self.look(segment), self.name, NOW):
                    self._carry_out(follows)
            case Drop(numbers):
                for number in numbers:
                    self.segments.pop(number, None)
        self.done.append(effect)

    def look(self, segment: Segment) -> list[Message]:
        """What is found on the disk of a segment that is missing, or damaged, or as it was written."""
        found = map(records.decode, self.segments.get(segment.number, []))
        return [message for record in found if isinstance(record, records.Unread) for message in record.messages]

    def _commit(self, decided: Sequence[Record]) -> None:
        for record in decided:  # one write, of which a crash leaves any number of whole records
            self.write(record)
            self._boundary()
        for record in decided:
            self.core.apply(record)
        for record in decided:
            if isinstance(record, Batch):
                self.lines += [*record.lines, *(message.notify_line() for message in record.messages)]
        self._boundary()

    def _boundary(self) -> None:
        self.meanwhile()
        if self.boundaries is not None:
            if self.boundaries == 0:
                raise Crash
            self.boundaries -= 1

    def write(self, record: Record) -> None:
        self.disk.append(records.encode(record))

    def restart(self) -> None:
        self.core = fold(self.name, self.disk, self.bounds)
        for number in self.segments.keys() - self.core.inbox.unread.segments.keys():
            del self.segments[number]
        self.probe = True
        self.caught_up = False

    def compact(self) -> None:
        self.disk = [records.encode(record) for record in self.core.snapshot()]

    # --- unread mail on the disk ---

    def spill(self, crash: int | None = None) -> None:
        """As much as can be."""
        while self.core.inbox.surplus() is not None:
            if not self.execute(lambda: spilling.spill(self.core.inbox), crash):
                return

    def bring(self, limit: int, *, direct: bool = False, crash: int | None = None) -> None:
        """Have so many in memory."""
        while spilling.bring(self.core.inbox, limit, 1 << 20, direct=direct):
            if not self.execute(lambda: spilling.bring(self.core.inbox, limit, 1 << 20, direct=direct), crash):
                return

    @property
    def unread(self) -> dict[str, Message]:
        """All of it, in order, wherever it is."""
        inbox = self.core.inbox
        segments = inbox.unread.segments
        looked = {k: [m for m in self.look(segments[k]) if not inbox.is_read(m.id)] for k in segments}
        return {message.id: message for message in inbox.peek(1 << 30, 1 << 30, looked)}

    # --- the reader, with the daemon's rules for when to ask for the counts ---

    def read(self, stream: Stream, now: Wall, crash: int | None = None) -> None:
        """One read of the stream."""
        self.caught_up = False
        cursor = self.core.inbox.position.at
        info = stream.info if self.probe else None
        raw = stream.read(cursor, READ_COUNT)
        full = len(raw) >= READ_COUNT
        if info is None and full:
            self.probe = True
            return
        went_back = info is not None and self.core.inbox.went_back(info)
        entries = [decode(at.encode(), flat, KEYS, LIMIT) for at, flat in raw]
        last = raw[-1][0] if raw else cursor
        before = len(self.done)
        if self.execute(lambda: self.core.receive(entries, last, now, info), crash):
            # What stands behind such news is read next.
            moved = any(isinstance(effect, CheckLease) for effect in self.done[before:])
            self.probe = full or went_back or moved or (info is None and not raw)
            self.caught_up = info is not None and not full and not went_back and not moved

    def catch_up(self, stream: Stream, now: Wall) -> None:
        """Read until there is nothing more, and the counts say so."""
        for _ in range(2 + stream.added):
            self.probe = True
            self.read(stream, now)
            if self.caught_up:
                return
        raise AssertionError("the reader does not come to the end of the stream")

    @property
    def quarantined(self) -> list[str]:
        return [entry.at for effect in self.done if isinstance(effect, Quarantine) for entry in effect.entries]


def fold(name: str, disk: Sequence[bytes], bounds: Bounds = BOUNDS) -> AgentCore:
    core = AgentCore(name, KEYS, bounds)
    for line in disk:
        core.apply(records.decode(line))
    return core


def state(core: AgentCore) -> list[bytes]:
    """The whole state as bytes, orders included."""
    return [records.encode(record) for record in core.snapshot()]
