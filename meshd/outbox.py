"""Sends. Each ends as sent, denied, unknown or refused, and says so truthfully."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from meshd.core.backoff import Backoff
from meshd.core.message import PREVIEW
from meshd.core.names import EVERYONE, Keys
from meshd.core.wire import DEDUPE_TTL, GATE_WINDOW, MAXLEN, Outgoing, Receipt
from meshd.errors import Denied, OutcomeUnknown, StoreBusy, StoreDown, StoreError
from meshd.settings import Settings
from meshd.store.commands import Commands

DEADLINE = 5.0
_COUNTERS = 10_000


class Outbox:
    """All sends of this daemon. `incarnation` names this run of it in every message it sends."""

    def __init__(self, settings: Settings, keys: Keys, commands: Commands, incarnation: str) -> None:
        self.settings = settings
        self._keys = keys
        self._commands = commands
        self._incarnation = incarnation
        self._counts: dict[tuple[str, str], int] = {}

    async def send(self, out: Outgoing, deadline: float = DEADLINE) -> Receipt:
        """Send once, however often it takes: repeats go under the same id, and the store recognises them.

        Raises `Denied`, `StoreDown`/`StoreBusy` (nothing was written) or `OutcomeUnknown`; each within
        `deadline` seconds, with the message's id in its data.
        """
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
            *out.fields,
        ]
        reply = await self._insist(out.id, "send", script_keys, args, deadline)
        verdict, _, n, held, rate, left = reply
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

    async def answer(self, key: str, ttl: int, fields: tuple[str, ...], deadline: float = DEADLINE) -> None:
        """Put one entry on a short-lived stream: a pong or a reply. Repeated, it is there twice: readers take one."""
        await self._insist(None, "answer", [key], [ttl, *fields], deadline)

    async def _insist(
        self, message_id: str | None, script: str, keys: list[str], args: list[Any], deadline: float
    ) -> Any:
        """Call until the store answers, or the time is up."""
        commands = self._commands
        facts = {"id": message_id} if message_id else {}
        backoff = Backoff(base=0.02, cap=0.5)
        until = time.monotonic() + deadline
        maybe_written = False
        # The usual case goes without the price of a timer: the connection has its own.
        timeout = None
        while True:
            try:
                return await commands.script(script, keys, args, timeout=timeout)
            except OutcomeUnknown as error:
                maybe_written = True
                trouble: StoreError = error
            except (StoreDown, StoreBusy) as error:
                trouble = error
            pause = backoff.next()
            timeout = until - time.monotonic() - pause
            if timeout <= 0:
                break
            await asyncio.sleep(pause)
        if maybe_written:
            raise OutcomeUnknown(
                f"no answer within {deadline:g} s: it may or may not have been sent ({trouble.message})",
                f"send again with --id {message_id}: that cannot duplicate it" if message_id else "try again",
                **facts,
            )
        raise type(trouble)(f"not sent: {trouble.message}", trouble.hint, **facts)
