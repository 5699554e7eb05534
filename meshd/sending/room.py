"""A mailbox that is full: what a sender is told, and how one that has patience waits for room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from meshd.core.backoff import Backoff
from meshd.core.clock import Mono
from meshd.errors import Busy
from meshd.sending.order import Place
from meshd.store.scripts.sending import SendResult, Waiting
from meshd.system import clock

# Seconds between two looks. Nothing tells that there is room, but it is made hundreds of entries at a time.
_FIRST, _LONGEST = 0.05, 1.0
_A_DAY = 86400  # seconds; what waits longer has its date said


def busy(target: str, waiting: Waiting, held: bool, message_id: str) -> Busy:
    """The error of a send that would have pushed out what waits in the target's mailbox."""
    if held:
        why, hint = "its daemon has not received them yet", "try again in a while"
    else:
        why, hint = "nobody hosts the name", f"meshctl inbox {target} reads them"
    return Busy(
        f"not sent: {target}'s mailbox is full: {waiting.entries} messages wait there{_since(waiting.since)}, {why}",
        f"{hint}; send --wait-room S waits for room",
        id=message_id,
        waiting=waiting.entries,
        since=waiting.since,
    )


def _since(at: float) -> str:
    """` since 21:03`; nothing of a time that cannot be one, for anybody can choose an entry's id."""
    now = clock.wall()
    if not 0 < at < now + _A_DAY:
        return ""
    return time.strftime(" since %H:%M" if now - at < _A_DAY else " since %Y-%m-%d %H:%M", time.localtime(at))


async def wait_for_room(
    place: Place,
    sent: SendResult,
    until: Mono,
    again: Callable[[], Awaitable[SendResult]],
    given_up: Callable[[], Awaitable[None]] | None = None,
) -> SendResult:
    """Send `again` until there is room, or until that time; what became of it. It is the place's turn.

    Those behind it who do not want to wait as long are told that it is held up. `given_up` is awaited if this is
    cancelled while it waits: nothing was sent.
    """
    backoff = Backoff(_FIRST, _LONGEST)
    try:
        while sent.verdict == "busy" and (left := until - clock.mono()) > 0:
            place.hold_up(sent)
            try:
                await asyncio.sleep(min(backoff.next(), left))
            except asyncio.CancelledError:
                if given_up is not None:
                    await given_up()
                raise
            sent = await again()
    finally:
        place.hold_up(None)
    return sent
