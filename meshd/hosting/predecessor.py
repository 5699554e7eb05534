"""What agent-mesh 0.1 left of a name, and its place in the store: where to go on, and what is newer than an entry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from meshd.core.clock import Wall
from meshd.core.message import entry_key
from meshd.core.names import Keys
from meshd.core.records import Batch, Entry, Moved, Position
from meshd.core.text import LINE_LIMIT, cut, one_line
from meshd.disk.legacy import Left
from meshd.errors import OutcomeUnknown, StoreBusy, StoreDown, StoreError
from meshd.store import replies
from meshd.store.commands import Commands
from meshd.store.scripts.leases import Granted
from meshd.store.scripts.places import places
from meshd.system.clock import wall

log = logging.getLogger("meshd")

_PEERS = 100  # whose streams are looked through: a stream takes the store a millisecond
_LAST = 2**64 - 1  # the greatest second part of an entry id


def beginning(said: Moved | None, granted: Granted, left: Left, entries: list[Entry]) -> Moved:
    """Where a name begins here: where it was read last, by whomever that was known of. `said`: by a daemon."""
    begin = Moved(position=Position(), group=granted.group_last) if said is None else said
    if begin.group is None:
        begin.group = granted.group_last
    # A place in the group that is not there yet would let broadcasts pass by; one in the own stream is found out.
    if left.group is not None and (said is None or entry_key(left.group) > entry_key(begin.group)):
        begin.group = min(left.group, granted.group_last, key=entry_key)
    if said is None or entry_key(left.cursor) > entry_key(begin.position.at):
        begin.position = Position(left.cursor, max(0, granted.added - granted.behind))
        begin.read_to = max(left.cursor, begin.read_to, key=entry_key)
    begin.entries = entries
    return begin


def told(name: str, left: Left, now: Wall) -> Batch | None:
    """Say what of its files was of no use: in the log, and for the agent's notify log."""
    for trouble in left.troubles:
        log.warning("%s: %s", name, trouble, extra={"agent": name})
    lines = [cut(one_line(f"⚠ {trouble}"), LINE_LIMIT) for trouble in left.troubles]
    return Batch(now=now, lines=lines) if lines else None


async def placed(entries: Sequence[Entry], keys: Keys, commands: Commands) -> list[Entry]:
    """The entries, each with the place up to which mail is older. Raises `StoreError`.

    That is where the message stands which asked: in the stream of whom it was sent to, whose ids the same clock gave.
    What is not found there was sent when 0.1 says so, by this machine's clock, which may be hours from the store's. Of
    a message that was re-pinged it does not say when it was sent, but that was before its deadline.
    """
    if not entries:
        return []
    ours = wall()
    theirs = await commands.call("TIME", read=replies.clock)
    found = await _found([entry for entry in entries if entry.state == "open"], keys, commands)
    taken = []
    for entry in entries:
        at = entry_key(found[entry.id])[0] if entry.id in found else None
        if at is None or at > theirs * 1000:  # an id from the future is not the clock's: anybody can write one
            sent = min(entry.sent, entry.deadline, ours) + theirs - ours
            at = max(0, int(sent * 1000))
        after = f"{at}-{_LAST}"
        taken.append(msgspec.structs.replace(entry, after=after, after_group=after))
    return taken


async def _found(entries: Sequence[Entry], keys: Keys, commands: Commands) -> dict[str, str]:
    """Where the messages stand that asked, of those that the store still has."""
    asked: dict[str, list[str]] = {}
    for entry in entries:
        asked.setdefault(entry.to, []).append(entry.id)
    looked = [commands.script(places(keys.inbox(peer), ids)) for peer, ids in list(asked.items())[:_PEERS]]
    found: dict[str, str] = {}
    for one in await asyncio.gather(*looked, return_exceptions=True):
        if isinstance(one, dict):
            found.update(one)
        elif isinstance(one, StoreDown | StoreBusy | OutcomeUnknown) or not isinstance(one, StoreError):
            raise one
        # Else it is no stream, or one that we may not read: 0.1's word has to do.
    return found
