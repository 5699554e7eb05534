"""What agent-mesh 0.1 left in its folder: how far it had read an agent's mail, and the agent's pending ledger.

`<name>.id` and `<name>_group.id` hold the id of the last entry that was read of the agent's stream and of the group.
`pending-<name>.jsonl` holds an object a line: `id` (`msg_id` is the same), `dir` (always "out"), `peer`, `sent_ts` (of
the message, or of the last re-ping), `deadline_ts`, `tries` (re-pings), `note` (the first 200 characters), `escalated`.
0.1 wrote these files in place, without a lock: half a file is what a crash leaves.

Nothing in them is believed before it was checked, and what is of no use is told. Files that were taken over are
renamed; all others stay as they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable
from typing import Annotated, BinaryIO, Literal, NamedTuple, TypeVar

import msgspec

from meshd.core.ledger import MAX_ENTRIES, MAX_PINGS, PAUSES
from meshd.core.message import PREVIEW, entry_key, is_entry_id
from meshd.core.names import is_id, is_name
from meshd.core.records import Entry
from meshd.disk.pace import Pace

TAKEN = ".taken-over"
_CURSOR_SIZE = 64  # bytes; an entry id has 41 at most
_LEDGER_SIZE = 16 << 20  # bytes of a ledger's end that are looked at: 0.1 appends, and its newest entries stand there
_LINE_SIZE = 1 << 16  # bytes of a line; 0.1 writes 3,000 at most
_YEAR_10000 = 253_402_300_800.0  # wall seconds: times behind that are none

T = TypeVar("T")

_Seconds = Annotated[float, msgspec.Meta(ge=0, lt=_YEAR_10000)]


class _Line(msgspec.Struct):
    """A line of the ledger, as far as it is used."""

    id: str
    peer: str
    deadline_ts: _Seconds
    sent_ts: _Seconds
    dir: Literal["out"] = "out"
    tries: Annotated[int, msgspec.Meta(ge=0)] = 0
    note: str = ""
    escalated: bool = False


class Left(NamedTuple):
    """What was found: the cursors ("0-0", and None, for none), entries, the files that they stood in, and in words what
    was of no use.
    """

    cursor: str = "0-0"
    group: str | None = None
    entries: tuple[Entry, ...] = ()
    files: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()

    def mark_taken(self) -> None:
        """Rename the files. Blocks. One that cannot be renamed is not read again all the same: the journal knows."""
        for path in self.files:
            with contextlib.suppress(OSError):
                os.replace(path, path + TAKEN)


class _Useless(Exception):
    """Why a file, or a part of it, is of no use."""


def find(name: str, folder: str) -> Left:
    """Look for the files of one agent. Blocks. Never raises: what is of no use is among the troubles."""
    files, troubles = list[str](), list[str]()

    def read(file: str, reader: Callable[[str], T], without: str) -> T | None:
        path = os.path.join(folder, file)
        try:
            found = reader(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, _Useless) as why:
            troubles.append(f"{path} of agent-mesh 0.1 is of no use ({_reason(why)}): {without}")
            return None
        files.append(path)
        return found

    cursor = read(f"{name}.id", functools.partial(_own_cursor, name), "all of its mail that the store has is unread")
    group = read(f"{name}_group.id", _cursor, "broadcasts come from now on")
    ledger = read(f"pending-{name}.jsonl", _ledger, "no replies are pending from it")
    entries, missing = ledger or ([], [])
    if ledger and not entries:
        files.pop()  # there was nothing that could be taken
    troubles += [f"{os.path.join(folder, f'pending-{name}.jsonl')} of agent-mesh 0.1: {what}" for what in missing]
    return Left(cursor or "0-0", group, tuple(entries), tuple(files), tuple(troubles))


def _reason(why: Exception) -> str:
    return why.strerror or type(why).__name__ if isinstance(why, OSError) else str(why)


def _open(path: str) -> int:
    """A descriptor of a regular file. Never waits, as it would for the other end of a fifo."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _Useless("it is no file")
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # it was put there just now
        os.close(fd)
        raise _Useless("it is no file")
    return fd


def _own_cursor(name: str, path: str) -> str:
    """Up to where an agent had read its own stream."""
    stem = name.removesuffix("_group")
    if stem != name and os.path.exists(os.path.join(os.path.dirname(path), f"{stem}.id")):
        # 0.1 gave both one file. To read again is better than to pass over what nobody has read.
        raise _Useless(f"it is {stem}'s place in the group")
    return _cursor(path)


def _cursor(path: str) -> str:
    """The entry id in a file, as the store writes it."""
    with open(_open(path), "rb") as file:
        data = file.read(_CURSOR_SIZE + 1)
    text = data.decode("ascii", "replace").strip()
    if len(data) > _CURSOR_SIZE or not is_entry_id(text):
        raise _Useless("it holds no entry id" if text else "it is empty")
    left, right = entry_key(text)
    return f"{left}-{right}"


def _ledger(path: str) -> tuple[list[Entry], list[str]]:
    """The entries, at most `MAX_ENTRIES`, and in words what is missing. The last word on an id counts."""
    found: dict[str, Entry] = {}
    useless, missing = 0, list[str]()
    pace = Pace()
    with open(_open(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LEDGER_SIZE:
            file.seek(size - _LEDGER_SIZE)
            _skip_line(file)
            missing.append(f"of its {size} bytes only the last {_LEDGER_SIZE} were looked at")
        while line := file.readline(_LINE_SIZE):
            pace()
            entry = None
            if line.endswith(b"\n") or len(line) < _LINE_SIZE:
                entry = _entry(line)
            else:
                _skip_line(file)
            if entry is not None:
                found.pop(entry.id, None)
                found[entry.id] = entry
            elif line.strip():
                useless += 1
    if useless:
        missing.append(f"{useless} {'line is' if useless == 1 else 'lines are'} of no use")
    # An escalated entry has nothing more to do: the others come first, and of each the newest.
    newest = list(found.values())[::-1]
    newest.sort(key=lambda entry: entry.state == "escalated")
    if len(newest) > MAX_ENTRIES:
        missing.append(f"{len(newest) - MAX_ENTRIES} entries above {MAX_ENTRIES} were not taken over")
    kept = {entry.id for entry in newest[:MAX_ENTRIES]}
    return [entry for entry in found.values() if entry.id in kept], missing


def _skip_line(file: BinaryIO) -> None:
    while (part := file.readline(_LINE_SIZE)) and not part.endswith(b"\n"):
        pass


_decode = msgspec.json.Decoder(_Line).decode


def _entry(line: bytes) -> Entry | None:
    """One line as an entry of ours; None for one of no use."""
    try:
        raw = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if not (is_id(raw.id) and is_name(raw.peer)):
        return None
    pings = min(raw.tries, MAX_PINGS)
    if raw.escalated:
        state, due = "escalated", 0.0
    else:
        # 0.1 wrote down when it has re-pinged last: from there the pause before the next step is counted.
        state, due = "open", raw.sent_ts + PAUSES[pings - 1] if pings else raw.deadline_ts
    return Entry(
        id=raw.id,
        to=raw.peer,
        text=raw.note[:PREVIEW],
        sent=raw.sent_ts,
        deadline=raw.deadline_ts,
        due=due,
        state=state,
        pings=pings,
    )
