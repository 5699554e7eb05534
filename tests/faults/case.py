"""A history, sorted for the questions that are asked of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.faults.history import (
    EVERYBODY,
    AnyEvent,
    Confirmed,
    Handed,
    Hosts,
    Intends,
    Logged,
    MayRepeat,
    Outcome,
    Told,
)


class Send(NamedTuple):
    sender: str
    target: str
    seq: int
    closing: bool


class Mail:
    """One name's mail: what was sent to it, and what became of that."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.first: dict[str, int] = {}  # id -> when it was first handed out, as a rank
        self.takes: list[Handed] = []
        self.told = self.perhaps_told = 0

    def handed(self, event: Handed) -> None:
        self.takes.append(event)
        for message_id in event.ids:
            self.first.setdefault(message_id, len(self.first))


class Case:
    """A history, sorted for the questions."""

    def __init__(self, events: Iterable[AnyEvent]) -> None:
        self.sends: dict[str, Send] = {}
        self.fates: dict[str, str] = {}
        self.mail: dict[str, Mail] = {}
        self.confirmed: dict[int, bool] = {}  # take -> whether it is certain
        self.order: list[Handed | Confirmed | MayRepeat] = []
        self.logs: list[Logged] = []
        self.statuses: list[Told] = []
        self._hosts: list[tuple[str, int]] = []  # name, how many sends were intended before
        self._intended: dict[str, int] = {}
        for event in events:
            self._take(event)

    def _take(self, event: AnyEvent) -> None:
        match event:
            case Hosts():
                self._hosts.append((event.name, len(self._intended)))
            case Intends():
                self.sends.setdefault(event.id, Send(event.sender, event.target, event.seq, event.closing))
                self._intended.setdefault(event.id, len(self._intended))
            case Outcome():
                self.fates[event.id] = _worse(self.fates.get(event.id), event.fate)
            case Handed():
                self.mail.setdefault(event.name, Mail(event.name)).handed(event)
                self.order.append(event)
            case Confirmed():
                self.confirmed[event.take] = event.sure
                self.order.append(event)
            case MayRepeat():
                self.order.append(event)
            case Logged():
                self.logs.append(event)
            case Told():
                self.statuses.append(event)

    def fate(self, message_id: str) -> str:
        """`sent`, `refused` or `unknown`, as it is after all attempts. One without an outcome is unknown."""
        return self.fates.get(message_id, "unknown")

    def names(self) -> list[str]:
        direct = {send.target for send in self.sends.values()} - {EVERYBODY}
        return sorted(direct | set(self.mail) | {name for name, _ in self._hosts})

    def sent_to(self, name: str) -> Iterator[str]:
        """Ids of all that was meant for the name, in the order of the intents."""
        since = min((at for hosted, at in self._hosts if hosted == name), default=None)
        for message_id, send in self.sends.items():
            to_all = send.target == EVERYBODY and since is not None and self._intended[message_id] >= since
            if send.target == name or to_all:
                yield message_id


def _worse(before: str | None, fate: str) -> str:
    """Of several attempts: one that was acknowledged decides, then one that may have happened."""
    for kind in ("sent", "unknown"):
        if kind in (before, fate):
            return kind
    return fate
