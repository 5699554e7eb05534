"""Requests that wait for their reply. A reply that comes when nobody waits any more is sent as a message."""

from __future__ import annotations

import asyncio
import contextlib
import time

from meshd.core.names import Keys, is_name, new_id
from meshd.core.wire import Outgoing
from meshd.errors import MeshError, OutcomeUnknown
from meshd.outbox import Outbox
from meshd.store.waiter import Waiters

_SEND = 5.0
CUT_OFF = 5.0  # seconds in which who was cut off asks again, as a session does whose gateway was killed


class Requests:
    """All requests of this daemon."""

    def __init__(self, keys: Keys, outbox: Outbox, waiters: Waiters) -> None:
        self._keys = keys
        self._outbox = outbox
        self._waiters = waiters
        self._asked: dict[str, int] = {}  # nonce -> how many wait for its reply
        self._given_up: set[asyncio.Task[None]] = set()

    async def ask(self, out: Outgoing, timeout: float) -> dict[bytes, bytes] | None:
        """Send a request whose id is its nonce; the fields of its reply, or None if none came in time.

        Raises as `Outbox.send` does, but not `OutcomeUnknown`: the reply will tell.
        """
        started = time.monotonic()
        self._asked[out.id] = self._asked.get(out.id, 0) + 1
        try:
            with contextlib.suppress(OutcomeUnknown):
                receipt = await self._outbox.send(out, min(timeout, _SEND))
                if receipt.again:
                    await self._outbox.pick_up(out.id)
            reply = await self._waiters.first(self._keys.reply(out.id), timeout - (time.monotonic() - started))
        except asyncio.CancelledError:
            task = asyncio.create_task(self._give_up(out), name="a request was given up")
            self._given_up.add(task)
            task.add_done_callback(self._given_up.discard)
            raise
        finally:
            self._asked[out.id] -= 1
            if not self._asked[out.id]:
                del self._asked[out.id]
        return reply if reply is not None or out.id in self._asked else await self._hang_up(out)

    async def _give_up(self, out: Outgoing) -> None:
        """Whoever asked is gone. What is answered until that is certain comes as a message from us."""
        await asyncio.sleep(CUT_OFF)
        if out.id in self._asked:
            return
        reply = await self._hang_up(out)
        peer = reply.get(b"from", b"").decode("utf-8", "replace") if reply else ""
        if reply and is_name(peer):
            text = reply.get(b"reply", b"").decode("utf-8", "replace")
            with contextlib.suppress(MeshError):
                await self._outbox.send(Outgoing(new_id(), peer, out.sender, text, private=True, fields=("re", out.id)))

    async def _hang_up(self, out: Outgoing) -> dict[bytes, bytes] | None:
        with contextlib.suppress(MeshError):  # with the store gone there is nobody to tell it to
            return await self._outbox.hang_up(out.id, out.sender)
        return None
