"""Mail on its way to a reader: what is told to whom, and once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.helper import eventually
from tests.receiving.daemon import Daemon, has


async def test_a_confirmation_that_its_caller_leaves_takes_effect_or_does_not(daemon: Daemon) -> None:
    """Until the disk has told which, nobody else is given the same: neither messages nor losses."""
    bob = await daemon.host("bob")
    daemon.send("bob", "one", sid="5e", n=1)
    daemon.send("bob", "two", sid="5e", n=5)
    await eventually(has(daemon, "bob", "one", "two"), "it has both")
    result = await daemon.inbox("bob")
    assert (result.data["lost"], len(result.data["messages"])) == (3, 2)
    assert result.handover is not None
    hang = daemon.hang("bob")
    hang.begin()
    confirming = asyncio.create_task(result.handover.confirm())
    await eventually(lambda: hang.waiting, "it is being written")
    confirming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await confirming
    assert bob.core.inbox.take(10, 1000) == []
    assert bob.core.inbox.losses.take() == 0
    hang.let_go()
    await eventually(lambda: not bob.core.inbox.unread, "they are read")
    assert bob.core.inbox.losses.untold == 0
    assert bob.handovers == []


async def test_losses_are_told_once_to_each_reader(daemon: Daemon) -> None:
    """Of three one is being told when two more are lost: the next is told two, or three if the first gave up."""
    counts = iter((1, 5, 8))

    async def lose() -> None:
        n = next(counts)
        daemon.send("bob", f"m{n}", sid="5e", n=n)
        await eventually(lambda: f"m{n}" in daemon.agent("bob").core.inbox.seen or has(daemon, "bob", f"m{n}")(), "")

    await daemon.host("bob")
    await lose()
    await lose()
    first = await daemon.inbox("bob")
    assert first.data["lost"] == 3
    await lose()
    second = await daemon.inbox("bob")
    assert second.data["lost"] == 2
    assert first.handover is not None
    assert second.handover is not None
    first.handover.release()
    third = await daemon.inbox("bob")
    assert third.data["lost"] == 3
    assert [message["id"] for message in third.data["messages"]] == ["m1", "m5"]
    assert third.handover is not None
    await second.handover.confirm()
    await third.handover.confirm()
    last: dict[str, Any] = (await daemon.inbox("bob")).data
    assert (last["lost"], last["messages"]) == (0, [])
