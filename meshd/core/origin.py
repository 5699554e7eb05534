"""What is remembered of a message: where it came from, so that it can be answered when it is not there any more."""

from __future__ import annotations

from typing import NamedTuple

from meshd.core.message import Message

_REQUEST = "?"  # marks the sender of a request among the remembered ids; no name contains it


class Origin(NamedTuple):
    """Who sent a message, whether it was a request, and what it was about if it was a re-ping."""

    sender: str
    request: bool = False
    about: str | None = None


def origin_of(message: Message) -> str:
    """What is remembered of a message: its `Origin`, in a string."""
    return _REQUEST * message.request + message.sender + (f" {message.about}" if message.about else "")


def origin_from(remembered: str | None) -> Origin | None:
    """What `origin_of` has made a string of; None of nothing."""
    if not remembered:
        return None
    sender, _, about = remembered.removeprefix(_REQUEST).partition(" ")
    return Origin(sender, remembered.startswith(_REQUEST), about or None)
