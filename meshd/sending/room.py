"""A mailbox that is full: what a sender is told, and how one that has patience waits for room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from meshd.core.backoff import Backoff
from meshd.core.clock import Mono
from meshd.errors import Busy, MeshError, OutcomeUnknown
from meshd.observing.background import owned
from meshd.sending.order import Place
from meshd.store.scripts.sending import SendResult, Waiting
from meshd.system import clock

# Seconds between two looks. Nothing tells that there is room, but it is made hundreds of entries at a time.
_FIRST, _LONGEST = 0.05, 1.0
GivenUp = Callable[[], Awaitable[None]]
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
    place: Place, until: Mono, attempt: Callable[[], Coroutine[Any, Any, SendResult]], given_up: GivenUp | None
) -> SendResult:
    """Make an `attempt` to send, again and again while there is no room until that time; what became of the last one.

    It is the place's turn. Those behind it who do not want to wait as long are told that it is held up. `given_up` is
    awaited if this is cancelled and nothing was sent.
    """
    backoff = Backoff(_FIRST, _LONGEST)
    try:
        while True:
            sent = await _ended(attempt(), given_up)
            if sent.verdict != "busy" or (left := until - clock.mono()) <= 0:
                return sent
            place.hold_up(sent)
            try:
                await asyncio.sleep(min(backoff.next(), left))
            except asyncio.CancelledError:
                if given_up is not None:
                    await given_up()
                raise
    finally:
        place.hold_up(None)


async def _ended(attempt: Coroutine[Any, Any, SendResult], given_up: GivenUp | None) -> SendResult:
    """The attempt's end, which is waited for also when this is cancelled, if somebody is to hear of it."""
    if given_up is None:
        return await attempt
    task = owned(attempt, "a send")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            was_sent = (await task).verdict in ("sent", "again")
        except MeshError as error:
            was_sent = isinstance(error, OutcomeUnknown)  # or may be
        if not was_sent:
            await given_up()
        raise
