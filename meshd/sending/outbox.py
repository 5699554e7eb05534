"""Sends. Each ends as sent, denied, busy, unknown or refused, and says so truthfully."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from meshd.core.backoff import Backoff
from meshd.core.clock import Mono
from meshd.core.names import Keys, check_name
from meshd.core.wire import GATE_WINDOW, Outgoing, Receipt
from meshd.errors import Denied, OutcomeUnknown, StoreBusy, StoreDown, StoreError, UsageError
from meshd.sending import room
from meshd.sending.acknowledged import Acknowledged, Acknowledgements
from meshd.sending.order import HeldUp, Lanes, Place
from meshd.settings import Settings
from meshd.store import replies
from meshd.store.commands import Commands
from meshd.store.scripts import answers, sending
from meshd.store.scripts.script import Invocation
from meshd.system import clock

T = TypeVar("T")

DEADLINE = 5.0
_HANG_UP = 1.0  # the caller's time is up already
_TIMES = ("expect_reply", "deadline")  # how long the sender waits is not what it says


class Outbox:
    """All sends of this daemon. What the store has acknowledged is noted in `sent`."""

    def __init__(
        self, settings: Callable[[], Settings], keys: Keys, commands: Commands, sent: Acknowledgements
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._commands = commands
        self._sent = sent
        self._lanes = Lanes()

    @property
    def settings(self) -> Settings:
        """Those that hold now."""
        return self._settings()

    async def send(
        self,
        out: Outgoing,
        deadline: float = DEADLINE,
        *,
        first: Callable[[], Awaitable[None]] | None = None,
        wait_room: float = 0.0,
        given_up: Callable[[], Awaitable[None]] | None = None,
    ) -> Receipt:
        """Send once, however often it takes: repeats go under the same id, and the store recognises them.

        Sends of one sender to one target keep the order in which this was called. `first` is awaited in that
        order too, before the message leaves. Raises `Denied`, `UsageError` (something else was sent under this id),
        `StoreDown`/`StoreBusy` (nothing was written) or `OutcomeUnknown`; each within `deadline` seconds, with the
        message's id in its data. Raises `Busy` if the target's mailbox is full, and stays so for `wait_room` seconds;
        `given_up` is awaited if this is cancelled meanwhile: nothing was sent.
        """
        key = (out.sender, out.target)
        digest, ts = _digest(out), clock.wall()
        place = self._lanes.enter(key)
        try:
            sent = await self._in_order(place, out, digest, ts, deadline, first, wait_room, given_up)
        finally:
            self._lanes.leave(key, place)
        if sent.n:
            self._sent.acknowledged(Acknowledged(out, digest, ts, sent.n, sent.entry))
        return self._receipt(out, sent)

    async def _in_order(
        self,
        place: Place,
        out: Outgoing,
        digest: str,
        ts: float,
        deadline: float,
        first: Callable[[], Awaitable[None]] | None,
        wait_room: float,
        given_up: Callable[[], Awaitable[None]] | None,
    ) -> sending.SendResult:
        prepared = functools.partial(
            sending.send,
            self._keys,
            out,
            sid=self._sent.incarnation,
            floor=self._sent.counts.last((out.sender, out.target)),
            gate=sending.Gate(self.settings.gate_limit, self.settings.gate_enforce),
            digest=digest,
            ts=ts,
        )
        commands, until, patience = self._commands, _in(deadline), _in(wait_room)
        trouble: StoreError | None = None
        # One that may wait for room takes its turn at once: what goes out behind it must not find room before it.
        if first is None and not wait_room and place.is_open and commands.up.is_set():
            try:  # the usual case, without the price of a timer: the connection has its own
                return await commands.script(prepared(ahead=place.before))
            except (OutcomeUnknown, StoreDown, StoreBusy) as error:
                trouble = error
        invocation = prepared()
        try:
            async with place.turn(wait_room):
                if first is not None:
                    await first()
                return await room.wait_for_room(
                    place,
                    patience,
                    lambda: self._repeat(out.id, invocation, max(until, min(patience, _in(deadline))), trouble),
                    given_up,
                )
        except HeldUp as those_before:
            if await commands.call("EXISTS", self._keys.dedupe(out.id), read=replies.number):
                return await self._repeat(out.id, invocation, until, None)  # it was sent before, and is not sent now
            return those_before.sent

    def _receipt(self, out: Outgoing, sent: sending.SendResult) -> Receipt:
        """What the store said, for the sender. Raises `Denied`, `UsageError`."""
        if sent.verdict == "other":
            raise UsageError(
                f"not sent: another message was sent under the id {out.id}",
                "give each message an id of its own, or leave out --id",
                id=out.id,
            )
        if sent.waiting is not None:
            raise room.busy(out.target, sent.waiting, sent.held, out.id)
        if sent.verdict == "denied":
            raise Denied(
                f"denied: {sent.rate} messages from {out.sender} to {out.target} within {GATE_WINDOW} s, "
                f"the limit is {self.settings.gate_limit}",
                f"try again in {sent.left} s, with fewer messages",
                id=out.id,
                retry_after=sent.left,
            )
        limit = self.settings.gate_limit
        return Receipt(out.id, sent.verdict == "again", sent.held, sent.rate, out.gated and sent.rate > limit)

    async def pong(self, nonce: str, fields: tuple[str, ...]) -> None:
        """Answer a ping. Repeated, the answer is there twice: the reader takes one."""
        await self._repeat(None, answers.pong(self._keys, nonce, fields), _in(DEADLINE), None)

    async def reply(self, nonce: str, reply_id: str, fields: tuple[str, ...]) -> tuple[str, str | None]:
        """Answer a request: how that went (`answers.Given`), and who asked if that is known."""
        invocation = answers.reply(self._keys, nonce, reply_id, fields)
        given = await self._repeat(reply_id, invocation, _in(DEADLINE), None)
        return given.how, check_name(given.asker, "asker") if given.asker is not None else None

    async def withdraw(self, nonce: str, reply_id: str) -> bool:
        """Take a reply back. False if it has reached who asked after all. Raises `OutcomeUnknown`."""
        try:
            return await self._repeat(reply_id, answers.withdraw(self._keys, nonce, reply_id), _in(DEADLINE), None)
        except (StoreDown, StoreBusy) as error:  # this was not written, but the reply was
            raise OutcomeUnknown(error.message, f"reply again with --id {reply_id}", id=reply_id) from None

    async def take(self, out: Outgoing, reply_id: str) -> None:
        """The reply has reached who asked: tell that to whoever gave it."""
        await self._repeat(None, answers.take(self._keys, out, reply_id), _in(_HANG_UP), None)

    async def hang_up(self, out: Outgoing, first: str) -> answers.Kept | None:
        """Stop waiting for the reply to a request, unless there is an entry from `first` on: its id and its fields."""
        return await self._repeat(None, answers.hang_up(self._keys, out, first), _in(_HANG_UP), None)

    async def pick_up(self, out: Outgoing) -> None:
        """Wait for the reply after all."""
        await self._commands.call("SET", self._keys.asked(out.id), f"waits {out.sender}", "EX", out.asks)

    async def _repeat(
        self, message_id: str | None, invocation: Invocation[T], until: float, trouble: StoreError | None
    ) -> T:
        """Call until the store answers, or the time is up. `trouble`: how the call failed before, if it did."""
        backoff = Backoff(base=0.02, cap=0.5)
        maybe_written = isinstance(trouble, OutcomeUnknown)
        if trouble is None and clock.mono() >= until and not self._commands.up.is_set():
            trouble = self._commands.down_error()  # the time went by while others were waited for
        while trouble is None or clock.mono() < until:
            try:
                return await self._commands.script(invocation, timeout=max(0.05, until - clock.mono()))
            except OutcomeUnknown as error:
                maybe_written = True
                trouble = error
            except (StoreDown, StoreBusy) as error:
                trouble = error
            await asyncio.sleep(min(backoff.next(), max(0.0, until - clock.mono())))
        facts = {"id": message_id} if message_id else {}
        if maybe_written:
            raise OutcomeUnknown(
                f"no answer in time: it may or may not have been sent ({trouble.message})",
                f"send again with --id {message_id}: that cannot duplicate it" if message_id else "try again",
                **facts,
            )
        raise type(trouble)(f"not sent: {trouble.message}", trouble.hint, **facts)


def _digest(out: Outgoing) -> str:
    """What a repetition says again: all but the times, which it may count anew."""
    fields = zip(out.fields[::2], out.fields[1::2], strict=True)
    kept = [part for field in fields if field[0] not in _TIMES for part in field]
    said = "\0".join((out.sender, out.target, *kept, out.text))
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def _in(seconds: float) -> Mono:
    return Mono(clock.mono() + seconds)
