"""What the store has lost of what it acknowledged is sent to it again, when it answers again.

It may have been killed before it had written all that down, or its place was taken by a replica that was behind. What
it has lost is the end of it: the marks by which repetitions are recognised are gone with the messages, so those whose
marks are not there are sent again, under their ids, with their numbers, in the order of before, ahead of anything new.
"""

from __future__ import annotations

import logging
from collections import Counter
from itertools import islice

from meshd.core.message import entry_key
from meshd.core.names import Keys
from meshd.core.wire import DEDUPE_TTL, MAXLEN
from meshd.errors import StoreBusy, StoreDown, StoreError
from meshd.sending.acknowledged import Acknowledged, Acknowledgements
from meshd.store import replies
from meshd.store.link import Link
from meshd.store.refusals import Forbidden
from meshd.store.scripts import sending
from meshd.store.scripts.script import Invocation
from meshd.system import clock

log = logging.getLogger("meshd.store")

_REACH = DEDUPE_TTL - 60.0  # seconds: of what is older its mark may have expired
# A store has lost all that came behind a moment. So the newest are asked for first, and the search ends where so many
# in a row are there, with none of the last seconds among them.
_SEARCHED = 256
_SURE = 5.0  # seconds
_AT_ONCE = 64  # that are sent in one write


class Replay:
    """Brings the store up to where it was. `again` is called with each new connection, before it is used."""

    def __init__(self, keys: Keys, sent: Acknowledgements) -> None:
        self._keys = keys
        self._sent = sent

    async def again(self, link: Link) -> None:
        """Raises `StoreError` if the connection broke, or the store takes no writes now: then not all is there."""
        try:
            missing = await self._missing(link)
        except Forbidden as error:
            log.error("it cannot be known what the store has lost: %s", error.message)
            return
        refused: list[StoreError] = []
        for first in range(0, len(missing), _AT_ONCE):
            commands = [self._invocation(message).command() for message in missing[first : first + _AT_ONCE]]
            for answer in await link.batch(commands):
                if isinstance(answer, StoreBusy | StoreDown):
                    raise answer
                if isinstance(answer, StoreError):
                    refused.append(answer)
        if missing:
            log.warning("the store had lost %d messages that it had acknowledged; they were sent again", len(missing))
        if refused:  # by a key of a wrong type, say: whoever receives the next one counts what is missing
            log.error("the store refused %d of those: %s", len(refused), refused[0].message)

    async def _missing(self, link: Link) -> list[Acknowledged]:
        """What it does not have, oldest first."""
        missing: list[Acknowledged] = []
        newer: Counter[str] = Counter()  # by target
        if not self._sent.any:
            return missing
        try:
            now = replies.clock(await link.call("TIME"))
        except Forbidden:
            now = clock.wall()
        lately = self._sent.lately(now - _REACH)
        while searched := list(islice(lately, _SEARCHED)):
            keys = [self._keys.dedupe(message.out.id) for message in searched]
            found = await link.call("MGET", *keys)
            marks = replies.row(found, *[object] * len(keys), wanted="a value for each of its messages")
            complete = True
            for message, mark in zip(searched, marks, strict=True):
                target = message.out.target
                # With so many behind it in its stream it was pushed out, and so had been received. Whoever did that
                # may not remember it any more.
                if mark is None and newer[target] < MAXLEN:
                    missing.append(message)
                    complete = False
                newer[target] += 1
            if complete and entry_key(searched[-1].entry)[0] / 1000 < now - _SURE:
                break
        return missing[::-1]

    def _invocation(self, message: Acknowledged) -> Invocation[sending.SendResult]:
        """The send as it was, past the gate: it has been let through."""
        return sending.send(
            self._keys,
            message.out,
            sid=self._sent.incarnation,
            floor=message.n - 1,
            gate=sending.Gate(0, enforce=False),
            digest=message.digest,
            ts=message.ts,
            again=True,
        )
