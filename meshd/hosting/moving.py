"""A name that moves: how far it was read goes with it through the store, and what only one disk still has.

The read record says up to where a name was read, for whoever hosts it next. What is unread is in the name's stream; and
what the stream has lost by then, the holder puts into the store again when it gives the name away.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

import msgspec

from meshd.core.agent import AgentCore
from meshd.core.message import Message, decode, encode, entry_before, entry_key, is_entry_id
from meshd.core.names import Keys, is_id, new_id
from meshd.core.records import UNKNOWN, Moved, Position
from meshd.core.wire import READ_TTL
from meshd.disk.legacy import Left
from meshd.hosting import predecessor
from meshd.hosting.entries import decoded
from meshd.receiving.agent import Agent
from meshd.settings import HARD_MESSAGE_LIMIT
from meshd.store import replies
from meshd.store.commands import Commands
from meshd.store.scripts import leases as scripts
from meshd.system.clock import wall

_LOST = 1_000_000  # more are not believed
_CAME = 16  # instances that had a name before
_INSTANCE = 64  # characters of one
_GREATEST = f"{2**64 - 1}-{2**64 - 1}"  # among entry ids
LEFT_PAGE = 200
LEFT_MOST = 100_000  # messages; what a disk has beyond that stays there
_NOTHING = Left()


class _ReadRecord(msgspec.Struct, omit_defaults=True):
    """JSON of the read record: private stream up to `p` (ordinal `i`), group up to `g`, single ids above.

    `l`: so many losses nobody was told of. `b`: the instance whose word it is. `h`: the same, for as long as it holds
    the name; up to `r` its disk has the private stream, which is for whoever sends (store/scripts/parts/room.lua).
    `c`: where the stream began when the name was taken from an instance, of those that had it last.
    """

    p: str = "0-0"
    i: int = 0
    g: str | None = None
    x: list[str] = []
    l: int = 0  # noqa: E741  # one letter each, as the record is written with every read
    b: str = ""
    h: str = ""
    r: str = "0-0"
    c: dict[str, str] = {}


class LastWord(NamedTuple):
    """How far a name was read, and by which instance. `holder`: the same, unless it has given the name up.

    `received`: up to where its disk has the private stream, as the store was told. `came`: where the stream began when
    the name was taken from each of those that had it before.
    """

    moved: Moved
    by: str
    holder: str
    received: str
    came: dict[str, str]


def read_record(value: bytes) -> LastWord | None:
    """A read record as it stands in the store; None if it is none, for anybody can write there."""
    record = decoded(value, _ReadRecord)
    if record is None or not (
        is_entry_id(record.p) and is_entry_id(record.g or "0-0") and record.i >= UNKNOWN and 0 <= record.l <= _LOST
    ):
        return None
    read_ids = [message_id for message_id in record.x if is_id(message_id)]
    place, received = Position(record.p, record.i), record.r if is_entry_id(record.r) else "0-0"
    moved = Moved(
        position=place, group=record.g, read_to=record.p, read_ids=read_ids, lost=record.l, counted_to=received
    )
    came = {by: at for by, at in record.c.items() if len(by) <= _INSTANCE and is_entry_id(at)}
    return LastWord(moved, record.b or record.h, record.h, received, came)


class Moving:
    """What a name takes along. All of it raises `StoreError`, and `Full` where something is written down here."""

    def __init__(self, keys: Keys, commands: Commands, instance: str) -> None:
        self._keys = keys
        self._commands = commands
        self._instance = instance
        self._came: dict[str, dict[str, str]] = {}  # by name: `LastWord.came` of our own word

    # --- coming ---

    @staticmethod
    def place_of(agent: Agent) -> Left:
        """Where agent-mesh 0.1 stopped, for a name that was never hosted here since."""
        return agent.legacy or _NOTHING

    async def look(self, name: str) -> tuple[LastWord | None, bool]:
        """How far a name was read, and whether its last holder has left mail for the next."""
        record, left = await asyncio.gather(
            self._commands.call("GET", self._keys.read(name), read=replies.value),
            self._commands.call("EXISTS", self._keys.left(name), read=replies.number),
        )
        return read_record(record or b""), bool(left)

    async def move_in(self, agent: Agent, said: LastWord | None, granted: scripts.Granted, place: Left) -> None:
        """Go on where the name was read."""
        core = agent.core
        came = dict(said.came) if said is not None else {}
        if said is not None:
            came.pop(said.by, None)
            came[said.by] = granted.first or _GREATEST
            said.moved.gone_to = _gone_to(came, self._instance)
        came.pop(self._instance, None)
        self._came[agent.name] = dict(list(came.items())[-_CAME:])
        if core.inbox.group is None:
            # It was never hosted here: from where it was read elsewhere, or by 0.1; else all that the store holds.
            entries = await predecessor.placed(place.entries, self._keys, self._commands)
            begin = predecessor.beginning(said.moved if said is not None else None, granted, place, entries)
            told = predecessor.told(agent.name, place, wall())
            await agent.execute(functools.partial(core.move, begin, told))
            await agent.legacy_taken()
        elif said is not None and (said.by != self._instance or _is_older(core, said, granted)):
            # Not our own last word: the journal knows more, and may have gone back with a store that did.
            await agent.execute(functools.partial(core.move, said.moved))

    async def take_left(self, agent: Agent) -> None:
        """Take in what the last holder has left, and then remove it."""
        key, last = self._keys.left(agent.name), "-"
        while page := await self._commands.call("XRANGE", key, last, "+", "COUNT", LEFT_PAGE, read=replies.entries):
            found = [self._left(flat) for _, flat in page]
            messages = await agent.backlog.fresh([message for message, _ in found if message is not None])
            until = next((until for _, until in found if until is not None), None)
            await agent.execute(functools.partial(agent.core.take_left, messages, until, wall()))
            last = f"({page[-1][0].decode()}"
        await self._commands.call("DEL", key)

    def _left(self, flat: Any) -> tuple[Message | None, Position | None]:
        """A message that was left, and up to where nothing unread is in the store; checked as every stranger's word."""
        if not isinstance(flat, list) or len(flat) % 2:
            return None, None
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        at, index = (fields.get(name, b"").decode("ascii", "replace") for name in (b"at", b"index"))
        until, until_index = (fields.get(name, b"").decode("ascii", "replace") for name in (b"until", b"until_index"))
        place = Position(until, int(until_index)) if is_entry_id(until) and until_index.isdecimal() else None
        if not is_entry_id(at):
            return None, place
        message = decode(at.encode(), flat, self._keys, HARD_MESSAGE_LIMIT)
        if not isinstance(message, Message):
            return None, place
        message.index = int(index) if index.isdecimal() and len(index) < 16 else 0
        return message, place

    # --- going ---

    async def write_position(self, agent: Agent, *, given_up: bool) -> scripts.Noted:
        """Tell how far it was read and received. Not over the word of another daemon that has held the name since."""
        record, received = agent.core.read_record(), agent.core.inbox.position
        value = msgspec.json.encode(
            _ReadRecord(
                p=record.position.at,
                i=record.position.index,
                g=record.group,
                x=record.read_ids,
                l=record.lost,
                b=self._instance,
                h="" if given_up else self._instance,
                r=received.at,
                c=self._came.get(agent.name, {}),
            )
        )
        return await self._commands.script(
            scripts.position(
                self._keys,
                agent.name,
                instance=self._instance,
                record=value,
                read_to=record.position.at,
                received=received,
            )
        )

    async def give_left(self, agent: Agent, *, tell: bool) -> None:
        """Leave in the store what is unread here and not there any more. `tell`: the new holder has begun already."""
        inbox, keys = agent.core.inbox, self._keys
        if not inbox.unread:
            return
        private, group, record = await asyncio.gather(
            self._commands.script(scripts.counts(keys.inbox(agent.name))),
            self._commands.script(scripts.counts(keys.group)),
            self._commands.call("GET", keys.read(agent.name), read=replies.value),
        )
        info, first = private.info, _begins(private)
        missing, said = first, read_record(record or b"")
        if said is not None and said.by != self._instance:
            # What was in the stream when another daemon took the name was received there, and may be read by now. One
            # that does not know of us found nothing that we had: the store was emptied.
            missing = min(first, said.came.get(self._instance, first), key=entry_key)
        known = inbox.position.index != UNKNOWN
        base = Position(entry_before(first) if private.first else info.last, info.added - info.length)
        until = base if known and inbox.position.index >= base.index else inbox.position
        place = ["until", until.at, "until_index", str(until.index)] if known else []
        key = keys.left(agent.name)
        given = 0
        async for page in _pages(agent.backlog.left_behind(missing, _begins(group)), LEFT_MOST):
            await asyncio.gather(
                *(
                    self._commands.call(
                        *("XADD", key, "*", "at", message.at, "index", message.index),
                        *encode(message, keys),
                        *place,
                    )
                    for message in page
                )
            )
            given += len(page)
        if not given:
            return
        await self._commands.call("EXPIRE", key, READ_TTL)
        if tell:
            notice = ("from", agent.name, "msg_type", "ping", "nonce", new_id(), "ts", f"{wall():.3f}", "moved", "left")
            await self._commands.call("XADD", keys.inbox(agent.name), "*", *notice)


def _is_older(core: AgentCore, said: LastWord, granted: scripts.Granted) -> bool:
    """Whether the journal was put back, to before our own last word: what was read since is in the store no more."""
    position, known = said.moved.position, core.inbox.position.index != UNKNOWN
    return known and core.inbox.is_behind(position) and 0 <= position.index <= granted.added


def _gone_to(came: dict[str, str], instance: str) -> str:
    """Before this entry the stream had nothing when the name was taken, from one of those that had it after us."""
    later = list(came)
    if instance in came:
        del later[: later.index(instance) + 1]
    return max((came[by] for by in later), key=entry_key, default="0-0")


async def _pages(messages: AsyncGenerator[Message], most: int) -> AsyncIterator[list[Message]]:
    """So many as are given away at once, and no more than `most` in all."""
    page: list[Message] = []
    async with contextlib.aclosing(messages):
        async for message in messages:
            page.append(message)
            most -= 1
            if len(page) >= LEFT_PAGE or not most:
                yield page
                page = []
            if not most:
                return
    if page:
        yield page


def _begins(found: scripts.Beginning) -> str:
    """The id of the first entry that the stream has; of one that has none, the greatest that there can be."""
    return found.first or _GREATEST
