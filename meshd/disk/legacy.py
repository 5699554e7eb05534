"""What agent-mesh 0.1 left in the cache folder: cursors and pending ledgers, taken over once.

0.1's programs wrote these files in more than one shape, so they are read leniently: a cursor is the first
entry id in the file, a ledger is JSON lines whose fields are known under several names. Files that were taken
over are renamed, so that they are not read twice.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, NamedTuple

import msgspec

from meshd.core.clock import Wall
from meshd.core.ledger import MAX_PINGS, PAUSES, entry_for
from meshd.core.message import entry_key
from meshd.core.names import is_id, is_name
from meshd.core.records import Entry

TAKEN = ".taken-over"
_ENTRY_ID = re.compile(r"\b\d{10,16}-\d{1,10}\b")
_CLOSED = {"settled", "acked", "replied", "closed", "done", "escalated"}


class Left(NamedTuple):
    """What was found: the cursor ("0-0" for none), open entries, and the files it stood in."""

    cursor: str
    entries: list[Entry]
    files: list[str]

    def mark_taken(self) -> None:
        for path in self.files:
            with contextlib.suppress(OSError):
                os.replace(path, path + TAKEN)


def find(name: str, folder: str) -> Left:
    """Look for the files of one agent. What cannot be read is left where it is."""
    cursor, entries, files = "0-0", list[Entry](), list[str]()
    for path in _cursor_files(name, folder):
        found = _ENTRY_ID.findall(_read(path))
        if found:
            cursor = max(cursor, *found, key=entry_key)
            files.append(path)
    pending = os.path.join(folder, f"pending-{name}.jsonl")
    if os.path.exists(pending):
        by_id: dict[str, Entry | None] = {}
        for line in _read(pending).split("\n"):
            by_id.update(_entry(line))
        entries = [entry for entry in by_id.values() if entry is not None]
        files.append(pending)
    return Left(cursor, entries, files)


def _cursor_files(name: str, folder: str) -> list[str]:
    # With any ending, but no further letters: the files of `bobby` are not those of `bob`.
    stems = (f"cursor-{name}", f"cursor_{name}", f"last-id-{name}")
    whole, begins = (*stems, f"{name}.cursor"), tuple(f"{stem}." for stem in stems)
    listed: list[str] = []
    with contextlib.suppress(OSError):
        listed = os.listdir(folder)
    found = [one for one in listed if (one in whole or one.startswith(begins)) and not one.endswith(TAKEN)]
    return [path for one in sorted(found) if os.path.isfile(path := os.path.join(folder, one))]


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read(1 << 20)
    return ""


def _entry(line: str) -> dict[str, Entry | None]:
    """One line of a 0.1 ledger, by its id; None for one that is settled. Empty for a line of no use."""
    try:
        raw: Any = msgspec.json.decode(line)
    except msgspec.MsgspecError:
        return {}
    if not isinstance(raw, dict):
        return {}

    def first(*names: str) -> Any:
        return next((raw[name] for name in names if raw.get(name) is not None), None)

    entry_id, to = (first("id", "msg_id", "message_id", "nonce"), first("to", "target", "peer", "agent"))
    if not (isinstance(entry_id, str) and is_id(entry_id) and isinstance(to, str) and is_name(to)):
        return {}
    state = str(first("state", "status") or "").lower()
    if state in _CLOSED or first("settled", "acked", "escalated", "done"):
        return {entry_id: None}
    sent = _seconds(first("ts", "sent", "sent_at", "sent_ts", "created"))
    deadline = _seconds(first("deadline", "due", "expires")) or sent + 120
    entry = entry_for(entry_id, to, str(first("msg", "message", "text") or ""), sent, max(0.0, deadline - sent))
    pings = first("repings", "pings", "reping_count", "attempts", "count")
    if type(pings) is int and 0 < pings <= MAX_PINGS:  # not True, which is an int and would be written as true
        entry.pings = pings
        entry.due = deadline + sum(PAUSES[:pings])
    if state == "responded":
        entry.state, entry.due = "responded", 0.0
    return {entry_id: entry}


def _seconds(value: Any) -> Wall:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        seconds = float(value)
        return Wall(seconds if 0 <= seconds < 1e12 else 0.0)  # neither infinity nor "not a number"
    return Wall(0.0)
