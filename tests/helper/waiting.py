"""Waiting until something is so, instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

DEADLINE = 20.0


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """The first true value of the condition. Fails, naming `what`, after `deadline` seconds."""
    until = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        time.sleep(0.01)
    return value


async def eventually(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """`wait_until` for code on an event loop."""
    until = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        await asyncio.sleep(0.005)
    return value
