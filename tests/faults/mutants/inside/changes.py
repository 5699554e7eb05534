"""What each mutant does otherwise than the daemon. Imported inside of a daemon that is starting."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import msgspec


def make(name: str) -> None:
    """Change this process. Raises if there is no such mutant, or nothing there to change."""
    CHANGES[name]()


def _replace(owner: type, name: str, new: Any) -> Any:
    """Give the class another method of that name, which it must have had; the old one."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    return old


def _no_dedupe() -> None:
    """Neither the store nor the inbox knows an id again."""
    from meshd.core.inbox import Inbox
    from meshd.store.scripts.sending import SEND

    asks = b"if before then"
    assert asks in SEND.source
    SEND.source = SEND.source.replace(asks, b"if false then")
    SEND.digest = hashlib.sha1(SEND.source, usedforsecurity=False).hexdigest()
    _replace(Inbox, "is_duplicate", lambda self, message_id: False)


def _no_turns() -> None:
    """A send that has to wait is overtaken."""
    from meshd.sending.order import Place

    @contextlib.asynccontextmanager
    async def turn(self: Place) -> AsyncIterator[None]:
        yield

    _replace(Place, "turn", turn)


def _unknown_as_down() -> None:
    """What may have been sent is said to be not sent."""
    from meshd.errors import OutcomeUnknown, StoreDown
    from meshd.sending.outbox import Outbox

    async def _repeat(self: Outbox, *args: Any, **named: Any) -> Any:
        try:
            return await repeat(self, *args, **named)
        except OutcomeUnknown as error:
            raise StoreDown(f"not sent: {error.message}", error.hint, **error.data) from None

    repeat = _replace(Outbox, "_repeat", _repeat)


def _journal(change: Callable[[list[Any]], list[Any]]) -> None:
    """Records are changed on their way to the disk, and are right in memory."""
    from meshd.disk.journal import Journal

    def changed(self: Journal, records: Iterable[Any]) -> None:
        append(self, change(list(records)))

    append = _replace(Journal, "append", changed)


def _no_mail_in_the_journal() -> None:
    """The cursor moves on, and what was received is in memory alone."""
    from meshd.core.records import Batch

    def without_mail(record: Any) -> Any:
        return msgspec.structs.replace(record, messages=[]) if isinstance(record, Batch) else record

    _journal(lambda records: [without_mail(record) for record in records])


def _no_reads_in_the_journal() -> None:
    from meshd.core.records import Read

    _journal(lambda records: [record for record in records if not isinstance(record, Read)])


def _read_when_handed_out() -> None:
    """Whoever gets mail has read it, whether it arrived or not."""
    from meshd.core.records import Read
    from meshd.receiving.handover import Handover

    def begin(self: Handover, agent: Any, messages: Any, lost: int = 0) -> None:
        init(self, agent, messages, lost)
        agent.core.apply(Read(ids=[message.id for message in messages]))

    init = _replace(Handover, "__init__", begin)


def _no_count_of_losses() -> None:
    from meshd.core.inbox import Inbox
    from meshd.core.losses import Losses

    _replace(Inbox, "trimmed", lambda self, info: 0)
    _replace(Losses, "gap", lambda self, *args, **named: 0)


def _losses_told_for_ever() -> None:
    from meshd.core.losses import Losses

    def told(self: Losses, lost: int) -> None:
        self._handed = max(0, self._handed - lost)

    _replace(Losses, "told", told)


def _no_lease_asked() -> None:
    """Whoever was stopped hands out what it has, without asking whether the name is still its."""
    from meshd.receiving.agent import Agent

    async def sure(self: Agent) -> None:
        return None

    _replace(Agent, "ensure_held", sure)
    _replace(Agent, "ensure_confirmable", sure)


CHANGES: dict[str, Callable[[], None]] = {
    "no dedupe": _no_dedupe,
    "no turns": _no_turns,
    "unknown as down": _unknown_as_down,
    "no mail in the journal": _no_mail_in_the_journal,
    "no reads in the journal": _no_reads_in_the_journal,
    "read when handed out": _read_when_handed_out,
    "no count of losses": _no_count_of_losses,
    "losses told for ever": _losses_told_for_ever,
    "no lease asked": _no_lease_asked,
}
