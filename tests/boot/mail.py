"""Some messages, sent in one session and read in another."""

from __future__ import annotations

import json

from tests.boot.machine import Shell

TEXTS = ["one", "two", "three"]


def send(session: Shell, *texts: str) -> None:
    """From alice to bob, who is registered. Without texts these are `TEXTS`."""
    session.sh("meshctl register bob")
    for text in texts or TEXTS:
        session.sh(f"meshctl send bob {text} --from alice")


def inbox(session: Shell) -> list[str]:
    """What is unread of bob's, oldest first; it is read then."""
    return [message["text"] for message in json.loads(session.sh("meshctl inbox bob --json"))["messages"]]
