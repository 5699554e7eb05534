"""Broadcasts on their way to an agent that cannot take them in now."""

from __future__ import annotations

import pytest

from meshd.receiving import feed
from meshd.receiving.health import JOURNAL
from tests.helper import eventually
from tests.receiving.daemon import Daemon, clear, has, obstruct, obstructed, read_elsewhere


async def test_a_flood_for_a_stuck_agent_waits_in_the_store(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for it has a bound, in number and in bytes, whether or not it is for everybody."""
    monkeypatch.setattr(feed, "QUEUE", 20)
    bob = await daemon.host("bob")
    await daemon.host("dora")
    waiting = daemon.mesh.group._feeds["bob"]
    texts = [f"b{n}" for n in range(100)]
    with obstructed(daemon.journal("bob")):
        daemon.broadcast("first")
        await eventually(lambda: bob.health.of(JOURNAL), "its journal cannot be written")
        for n, text in enumerate(texts):
            daemon.broadcast(text)
            await eventually(has(daemon, "dora", text), "dora has it")
            assert sum(len(broadcasts) for broadcasts, _ in waiting._queue) <= 20, n
    await eventually(has(daemon, "bob", *texts), "it has all")
    assert list(bob.core.inbox.unread) == ["first", *texts]


async def test_copies_of_private_mail_add_nothing_to_what_waits_for_a_stuck_agent(daemon: Daemon) -> None:
    """The group stream has each private message, too: of those only how far the stream was read is kept."""
    bob = await daemon.host("bob")
    await daemon.host("dora")
    waiting = daemon.mesh.group._feeds["bob"]
    with obstructed(daemon.journal("bob")):
        daemon.broadcast("first")
        await eventually(lambda: bob.health.of(JOURNAL), "its journal cannot be written")
        for n in range(50):
            at = daemon.store.xadd(
                f"{daemon.prefix}:group", {"from": "alice", "to": "carol", "msg": "x", "id": f"c{n}"}
            )
            await eventually(lambda: daemon.mesh.group.cursor == at.decode(), "it was read")  # noqa: B023
        assert len(waiting._queue) <= 1
    await eventually(has(daemon, "bob", "first"), "it has it")
    await eventually(lambda: waiting.has_read(daemon.mesh.group.cursor or ""), "it has gone on")


async def test_large_broadcasts_for_a_stuck_agent_wait_in_the_store(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "QUEUE_BYTES", 1000)
    bob = await daemon.host("bob")
    await daemon.host("dora")
    waiting = daemon.mesh.group._feeds["bob"]
    with obstructed(daemon.journal("bob")):
        daemon.broadcast("first")
        await eventually(lambda: bob.health.of(JOURNAL), "its journal cannot be written")
        for n in range(10):
            daemon.broadcast("x" * 300, id=f"b{n}")
            await eventually(has(daemon, "dora", f"b{n}"), "dora has it")
            assert sum(len(broadcasts) for broadcasts, _ in waiting._queue) <= 3
    await eventually(has(daemon, "bob", *(f"b{n}" for n in range(10))), "it has all")
    assert list(bob.core.inbox.unread) == ["first", *(f"b{n}" for n in range(10))]


async def test_broadcasts_reach_an_agent_whose_disk_was_full_when_its_lease_was_asked_for(daemon: Daemon) -> None:
    """What it is told of its lease may have to be written down: that is tried again, as all else is."""
    bob = await daemon.host("bob")
    await daemon.host("dora")
    daemon.send("bob", "one")
    await eventually(has(daemon, "bob", "one"), "it has it")
    obstruct(daemon.journal("bob"))
    read_elsewhere(daemon, "bob", bob.core.inbox.position.at)
    bob.lease.lost()
    daemon.broadcast("all")
    await eventually(has(daemon, "dora", "all"), "dora has it")
    await eventually(lambda: bob.health.of(JOURNAL), "its journal cannot be written")
    clear(daemon.journal("bob"))
    await eventually(has(daemon, "bob", "all"), "bob has it")
