"""Entries that are no messages, kept for a person to look at."""

from __future__ import annotations

from meshd.receiving.health import JOURNAL
from tests.helper import eventually
from tests.receiving.daemon import Daemon, has, obstructed


async def test_an_entry_is_kept_once_however_often_the_journal_is_tried(daemon: Daemon) -> None:
    """The file has a bound: one entry that was written again and again would push all others out."""
    bob = await daemon.host("bob")
    came = daemon.hang("bob").came
    with obstructed(daemon.journal("bob")):
        daemon.store.xadd(f"{daemon.prefix}:to_bob", {"from": "alice"})
        await eventually(lambda: bob.health.of(JOURNAL), "its journal cannot be written")
        await eventually(lambda: daemon.hang("bob").came >= came + 3, "it was tried again")
    daemon.send("bob", "one")
    await eventually(has(daemon, "bob", "one"), "it goes on")
    kept = daemon.journal("bob").with_suffix(".quarantine")
    assert len(kept.read_text().splitlines()) == 1
