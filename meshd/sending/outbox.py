"""Sends. Each ends as sent, denied, unknown or refused, and says so truthfully."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from meshd.core.backoff import Backoff
from meshd.core.message import PREVIEW
from meshd.core.names import EVERYONE, Keys, check_name
from meshd.core.wire import (
    ASKED_TTL,
    DEDUPE_TTL,
    GATE_WINDOW,
    MAXLEN,
    PONG_TTL,
    REPLY_TTL,
    TAKEN_TTL,
    Outgoing,
    Receipt,
)
from meshd.errors import Denied, OutcomeUnknown, StoreBusy, StoreDown, StoreError, UsageError
from meshd.sending.order import Lanes, Place
from meshd.settings import Settings
from meshd.store.commands import Commands

DEADLINE = 5.0
_HANG_UP = 1.0  # the caller's time is up already
_COUNTERS = 10_000
_TIMES = ("expect_reply", "deadline")  # how long the sender waits is not what it says


class Outbox:
    """All sends of this daemon. `incarnation` names this run of it in every message it sends."""

    def __init__(self, settings: Settings, keys: Keys, commands: Commands, incarnation: str) -> None:
        self.settings = settings
        self._keys = keys
        self._commands = commands
        self._incarnation = incarnation
        self._counts: dict[tuple[str, str], int] = {}
        self._lanes = Lanes()

    async def send(
        self, out: Outgoing, deadline: float = DEADLINE, *, first: Callable[[], Awaitable[None]] | None = None
    ) -> Receipt:
        """Send once, however often it takes: repeats go under the same id, and the store recognises them.

        Sends of one sender to one target keep the order in which this was called. `first` is awaited in that
        order too, before the message leaves. Raises `Denied`, `UsageError` (something else was sent under this id),
        `StoreDown`/`StoreBusy` (nothing was written) or `OutcomeUnknown`; each within `deadline` seconds, with the
        message's id in its data.
        """
        key = (out.sender, out.target)
        place = self._lanes.enter(key)
        try:
            return self._receipt(out, await self._in_order(place, out, deadline, first))
        finally:
            self._lanes.leave(key, place)

    async def _in_order(
        self, place: Place, out: Outgoing, deadline: float, first: Callable[[], Awaitable[None]] | None
    ) -> Any:
        keys, args = self._call_of(out)
        commands, until = self._commands, time.monotonic() + deadline
        trouble: StoreError | None = None
        if first is None and place.is_open and commands.up.is_set():
            try:  # the usual case, without the price of a timer: the connection has its own
                return await commands.script("send", keys, args)
            except (OutcomeUnknown, StoreDown, StoreBusy) as error:
                trouble = error
        async with place.turn():
            if first is not None:
                await first()
            return await self._repeat(out.id, "send", keys, args, until, trouble)

    def _call_of(self, out: Outgoing) -> tuple[list[str], list[Any]]:
        """Keys and arguments of the send script."""
        keys = self._keys
        broadcast = out.target == EVERYONE
        script_keys = [
            keys.group if broadcast else keys.inbox(out.target),
            keys.group,
            keys.dedupe(out.id),
            keys.rate(out.sender, out.target),
            keys.audit,
            keys.count(self._incarnation, out.sender, out.target),
            keys.registry(out.target),
            keys.lease(out.target),
            *([keys.asked(out.id)] if out.asks else []),
        ]
        args: list[Any] = [
            out.id,
            self.settings.gate_limit if out.gated else 0,
            GATE_WINDOW,
            1 if self.settings.gate_enforce else 0,
            MAXLEN,
            DEDUPE_TTL,
            self._counts.get((out.sender, out.target), 0),
            0 if out.private or broadcast else 1,
            out.sender,
            out.target,
            out.text,
            f"{time.time():.6f}",
            self._incarnation,
            out.text[:PREVIEW],  # cut here: the script would cut a character in half
            _digest(out),
            out.asks,
            *out.fields,
        ]
        return script_keys, args

    def _receipt(self, out: Outgoing, reply: Any) -> Receipt:
        """What the script's reply means. Raises `Denied`, `UsageError`."""
        verdict, _, n, held, rate, left = reply
        if verdict == b"other":
            raise UsageError(
                f"not sent: another message was sent under the id {out.id}",
                "give each message an id of its own, or leave out --id",
                id=out.id,
            )
        if verdict == b"denied":
            raise Denied(
                f"denied: {rate} messages from {out.sender} to {out.target} within {GATE_WINDOW} s, "
                f"the limit is {self.settings.gate_limit}",
                f"try again in {left} s, with fewer messages",
                id=out.id,
                retry_after=left,
            )
        if n:
            if len(self._counts) > _COUNTERS:
                self._counts.clear()
            self._counts[out.sender, out.target] = n
        limit = self.settings.gate_limit
        return Receipt(out.id, verdict == b"again", bool(held), rate, out.gated and rate > limit)

    async def pong(self, nonce: str, fields: tuple[str, ...]) -> None:
        """Answer a ping. Repeated, the answer is there twice: the reader takes one."""
        await self._repeat(None, "answer", [self._keys.pong(nonce)], [PONG_TTL, *fields], _in(DEADLINE), None)

    async def reply(self, nonce: str, reply_id: str, fields: tuple[str, ...]) -> tuple[str, str | None]:
        """Answer a request: how that went, as answer.lua tells it, and who asked if that is known."""
        keys = [self._keys.reply(nonce), self._keys.asked(nonce)]
        args = [REPLY_TTL, *fields, "id", reply_id]
        verdict, *asker = await self._repeat(reply_id, "answer", keys, args, _in(DEADLINE), None)
        return verdict.decode(), check_name(asker[0].decode(), "asker") if asker else None

    async def withdraw(self, nonce: str, reply_id: str) -> bool:
        """Take a reply back. False if it has reached who asked after all. Raises `OutcomeUnknown`."""
        keys = [self._keys.reply(nonce), self._keys.asked(nonce)]
        try:
            (verdict,) = await self._repeat(reply_id, "withdraw", keys, [reply_id], _in(DEADLINE), None)
        except (StoreDown, StoreBusy) as error:  # this was not written, but the reply was
            raise OutcomeUnknown(error.message, f"reply again with --id {reply_id}", id=reply_id) from None
        return bool(verdict == b"withdrawn")

    async def take(self, out: Outgoing, reply_id: str) -> None:
        """The reply has reached who asked: tell that to whoever gave it."""
        keys = [self._keys.asked(out.id), self._keys.taken(out.id)]
        await self._repeat(None, "take", keys, [out.sender, out.asks, reply_id, TAKEN_TTL], _in(_HANG_UP), None)

    async def hang_up(self, out: Outgoing, first: str) -> tuple[str, Sequence[bytes]] | None:
        """Stop waiting for the reply to a request, unless there is an entry from `first` on: its id and its fields."""
        keys = [self._keys.reply(out.id), self._keys.asked(out.id)]
        args = [out.sender, ASKED_TTL, first]
        verdict, *entry = await self._repeat(None, "hang_up", keys, args, _in(_HANG_UP), None)
        return None if verdict == b"late" else (entry[0].decode(), entry[1])

    async def pick_up(self, out: Outgoing) -> None:
        """Wait for the reply after all."""
        await self._commands.call("SET", self._keys.asked(out.id), f"waits {out.sender}", "EX", out.asks)

    async def _repeat(
        self,
        message_id: str | None,
        script: str,
        keys: list[str],
        args: list[Any],
        until: float,
        trouble: StoreError | None,
    ) -> Any:
        """Call until the store answers, or the time is up. `trouble`: how the call failed before, if it did."""
        backoff = Backoff(base=0.02, cap=0.5)
        maybe_written = isinstance(trouble, OutcomeUnknown)
        if trouble is None and time.monotonic() >= until and not self._commands.up.is_set():
            trouble = self._commands.down_error()  # the time went by while others were waited for
        while trouble is None or time.monotonic() < until:
            try:
                return await self._commands.script(script, keys, args, timeout=max(0.05, until - time.monotonic()))
            except OutcomeUnknown as error:
                maybe_written = True
                trouble = error
            except (StoreDown, StoreBusy) as error:
                trouble = error
            await asyncio.sleep(min(backoff.next(), max(0.0, until - time.monotonic())))
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


def _in(seconds: float) -> float:
    return time.monotonic() + seconds
