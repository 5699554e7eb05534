"""Requests that wait for their reply, and the replies to them.

Whoever replies hears only that the reply has reached who asked when it has: the asker's daemon tells so, once it was
handed over. What is not told in time is taken back, and sent as a message; so it is with what comes when nobody waits
any more, and with a second reply. A 0.1 program tells nothing, and is told nothing; nor does it let its reply expire,
which the asker's daemon does for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from meshd.core.ledger import derived_id
from meshd.core.message import Reply, decode_reply
from meshd.core.names import Keys
from meshd.core.wire import Outgoing
from meshd.errors import MeshError, OutcomeUnknown
from meshd.observing.background import Background
from meshd.sending.outbox import Outbox
from meshd.store.waits import Waiters
from meshd.system import clock

log = logging.getLogger("meshd.requests")

_SEND = 5.0
_LATE = 60.0  # seconds for which a reply that comes as a message waits for room in the asker's mailbox
CUT_OFF = 5.0  # seconds in which who was cut off asks again, as a session does whose gateway was killed


class Requests:
    """All requests of this daemon, and all replies that it gives."""

    def __init__(self, keys: Keys, outbox: Outbox, waiters: Waiters) -> None:
        self._keys = keys
        self._outbox = outbox
        self._waiters = waiters
        self._asked: dict[str, int] = {}  # nonce -> how many wait for its reply
        self._background = Background(log)

    # --- asking ---

    async def ask(self, out: Outgoing, timeout: float) -> Reply | None:
        """Send a request whose id is its nonce; its reply, or None if none came in time.

        Raises as `Outbox.send` does, but not `OutcomeUnknown`: the reply will tell. `Busy` only when the time is up.
        With a reply the caller owes `reached`, or `give_up`.
        """
        started = clock.mono()
        self._asked[out.id] = self._asked.get(out.id, 0) + 1
        try:
            with contextlib.suppress(OutcomeUnknown):
                receipt = await self._outbox.send(out, min(timeout, _SEND), wait_room=timeout)
                if receipt.again:
                    await self._outbox.pick_up(out)
            left = timeout - (clock.mono() - started)
            found = await self._waiters.first(self._keys.reply(out.id), left, lambda raw: self._reply(out, raw))
        except asyncio.CancelledError:
            self.give_up(out)
            raise
        finally:
            self._asked[out.id] -= 1
            if not self._asked[out.id]:
                del self._asked[out.id]
        return found if found is not None or out.id in self._asked else await self._hang_up(out)

    async def reached(self, out: Outgoing, reply: Reply) -> None:
        """It is in the hands of who asked. If the store does not hear that, the reply comes as a message, too."""
        with contextlib.suppress(MeshError):
            await self._outbox.take(out, reply.id)

    def give_up(self, out: Outgoing) -> None:
        """Whoever asked is gone, unless it asks again."""
        self._background.start(self._give_up(out), "a request was given up")

    async def _give_up(self, out: Outgoing) -> None:
        await asyncio.sleep(CUT_OFF)
        if out.id in self._asked:
            return
        reply = await self._hang_up(out)
        if reply is not None and not reply.id:  # of a 0.1 program, which does not find out by itself
            message_id = derived_id(out.id, 0)
            late = Outgoing(message_id, reply.sender, out.sender, reply.text, private=True, fields=("re", out.id))
            try:
                await self._outbox.send(late, wait_room=_LATE)
                await self._outbox.take(out, "")
            except MeshError as error:  # it stays where it is for ten minutes
                log.warning("a late reply of %s to %s: %s", late.sender, late.target, error.message)

    async def _hang_up(self, out: Outgoing) -> Reply | None:
        """Wait no longer, unless there is a reply."""
        first = "-"
        with contextlib.suppress(MeshError):  # with the store gone there is nobody to tell it to
            while (entry := await self._outbox.hang_up(out, first)) is not None:
                reply = self._reply(out, entry.raw)
                if reply is not None:
                    return reply
                first = f"({entry.id}"
        return None

    def _reply(self, out: Outgoing, raw: Sequence[bytes]) -> Reply | None:
        """The reply in an entry of its stream. What is none is passed over: a good one may follow."""
        found = decode_reply(raw, self._outbox.settings.max_message)
        if isinstance(found, Reply):
            return found
        log.warning("an entry that is no reply to request %s of %s: %s", out.id, out.sender, found)
        return None

    # --- replying ---

    async def reply(self, nonce: str, reply_id: str, fields: tuple[str, ...]) -> str | None:
        """Reply to a request. None if that has reached who asked, or a 0.1 program did; else who is to get it as a
        message: nothing was written then. Raises `StoreDown`/`StoreBusy` (so it was) or `OutcomeUnknown`.
        """
        how, asker = await self._outbox.reply(nonce, reply_id, fields)
        if how == "waits":
            news = await self._waiters.first(self._keys.taken(nonce), CUT_OFF, list)
            reached = news is not None and reply_id.encode() in news
            if reached or not await self._outbox.withdraw(nonce, reply_id):
                return None
        return asker
