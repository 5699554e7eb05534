"""When a journal is written anew."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.core import queue
from meshd.receiving.executor import Executor
from tests.helper import eventually
from tests.receiving.daemon import Daemon

MESSAGES = 16_000


async def test_a_backlog_of_short_messages_is_not_written_again_and_again(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it counts, though its texts are few bytes: only when half of the journal is of no use it is worth it.

    As long as all of it may be in memory.
    """
    monkeypatch.setattr(queue, "BOUNDS", queue.Bounds(messages=MESSAGES))
    rewritten: list[Any] = []
    rewrite = Executor._rewrite

    def counted(self: Executor) -> None:
        rewritten.append(self)
        rewrite(self)

    monkeypatch.setattr(Executor, "_rewrite", counted)
    bob = await daemon.host("bob")
    for first in range(0, MESSAGES, 500):
        for k in range(first, first + 500):
            daemon.send("bob", f"m{k}")
        await eventually(lambda first=first: len(bob.core.inbox.unread) == first + 500, "all are received")  # type: ignore[misc]
    assert daemon.journal("bob").stat().st_size > 1 << 20
    assert rewritten == []
