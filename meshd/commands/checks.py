"""Checks of what a caller gives. Each raises `UsageError`; then nothing has happened."""

from __future__ import annotations

import asyncio

from meshd.core.names import check_id
from meshd.errors import UsageError

LONGEST_WAIT = 30 * 86400.0


def check_text(text: str, limit: int, what: str = "message") -> str:
    """A text that can be sent. Raises `UsageError`; then nothing has happened."""
    if not text:
        raise UsageError(f"the {what} is empty", f"give a text, or - to read the {what} from standard input")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise UsageError(f"the {what} is not valid UTF-8", "send text; encode binary data, as with base64") from None
    if size > limit:
        raise UsageError(
            f"the {what} has {size} bytes, over the limit of {limit}",
            "put it into a file and send the path, or raise AGENT_MESH_MAX_MESSAGE for sender and receiver",
            size=size,
            limit=limit,
        )
    return text


def check_seconds(value: float, what: str) -> float:
    if not 0 < value <= LONGEST_WAIT:
        raise UsageError(f"{what} must be more than 0 and at most {LONGEST_WAIT:g} seconds", f"as in --{what} 60")
    return value


def check_wait_room(value: float) -> float:
    """For so many seconds a sender waits for room in a full mailbox; 0 does not."""
    if not 0 <= value <= LONGEST_WAIT:
        raise UsageError(f"wait_room must be from 0 to {LONGEST_WAIT:g} seconds", "as in --wait-room 30")
    return value


def check_optional_id(value: str | None, what: str) -> str | None:
    return None if value is None else check_id(value, what)


def deadline_in(seconds: float) -> float:
    """A moment on the loop's clock."""
    return asyncio.get_running_loop().time() + seconds
