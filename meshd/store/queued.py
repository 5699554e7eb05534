"""A command in the queue of the command connection, and whoever waits for its reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from meshd.errors import StoreError
from meshd.store.scripts.script import Script


class Queued:
    """`written`: its bytes went out, so that it may have been carried out."""

    __slots__ = ("command", "future", "read", "script", "written")

    def __init__(self, command: tuple[Any, ...], read: Callable[[Any], Any], script: Script[Any] | None = None) -> None:
        self.command = command
        self.read = read
        self.script = script
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.written = False

    @property
    def writes(self) -> bool:
        return self.script is not None and self.script.writes

    def fail(self, error: StoreError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
