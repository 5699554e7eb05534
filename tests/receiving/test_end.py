"""The end of an agent: it ends all that is done for it, whatever state that is in."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from meshd.errors import MeshError, NotFound
from meshd.receiving import executor
from meshd.receiving.health import JOURNAL
from tests.helper import eventually
from tests.receiving.daemon import Daemon, clear, has, obstruct, obstructed


async def test_a_deregister_ends_what_is_tried_again_and_again(daemon: Daemon) -> None:
    """And when the disk takes something again, nothing of it is written."""
    bob = await daemon.host("bob")
    dora = await daemon.host("dora")
    path = daemon.journal("bob")
    obstruct(path)
    daemon.send("bob", "one")
    daemon.broadcast("all")
    await eventually(lambda: bob.health.of(JOURNAL), "its journal cannot be written")
    await eventually(has(daemon, "dora", "all"), "dora has it")
    await daemon.mesh.names.unhost("bob")
    assert [task.get_name() for task in asyncio.all_tasks() if "bob" in task.get_name()] == []
    clear(path)
    before = path.read_bytes()
    for n in range(20):
        daemon.broadcast(f"later{n}")
    await eventually(has(daemon, "dora", "later19"), "dora has them")
    assert path.read_bytes() == before
    assert bob.core.inbox.unread == {}
    assert dora.health.trouble is None


async def test_a_name_that_is_registered_again_has_one_writer(daemon: Daemon) -> None:
    """What was tried for it before is given up, and what the store has is taken in once."""
    old = await daemon.host("bob")
    path = daemon.journal("bob")
    with obstructed(path):
        daemon.send("bob", "one")
        daemon.broadcast("all")
        await eventually(lambda: old.health.of(JOURNAL), "its journal cannot be written")
        await daemon.mesh.names.unhost("bob")
    bob = await daemon.host("bob")
    assert bob is not old
    await eventually(has(daemon, "bob", "one", "all"), "it has both")
    daemon.send("bob", "two")
    await eventually(has(daemon, "bob", "two"), "it goes on")
    await eventually(lambda: len(daemon.lines("bob")) == 3, "three lines")
    text = path.read_text()
    assert [text.count(f'"id":"{message_id}"') for message_id in ("one", "two", "all")] == [1, 1, 1]
    assert old.core.inbox.unread == {}


async def test_a_confirmation_that_a_deregister_overtakes_is_not_found(daemon: Daemon) -> None:
    """Those that wait for the step before theirs are told, and so are those that come while that one is finished."""
    await daemon.host("bob")
    for text in ("one", "two"):
        daemon.send("bob", text)
    await eventually(has(daemon, "bob", "one", "two"), "it has both")
    bob = daemon.agent("bob")
    handed = (await daemon.inbox("bob")).handover
    assert handed is not None
    hang = daemon.hang("bob")
    hang.begin()
    daemon.send("bob", "three")
    await eventually(lambda: hang.waiting, "a step is in the disk")
    waits = asyncio.create_task(handed.confirm())
    await asyncio.sleep(0)
    ending = asyncio.create_task(daemon.mesh.names.unhost("bob"))
    await eventually(lambda: bob.gone is not None, "it is ended")
    late = asyncio.create_task(bob.execute(lambda: bob.core.mark_read(["two"])))
    await asyncio.sleep(0)
    hang.let_go()
    await ending
    for told in await asyncio.gather(waits, late, return_exceptions=True):
        assert isinstance(told, NotFound), told
        assert told.message == "bob was deregistered"


async def test_a_deregister_does_not_wait_for_a_disk_that_hangs(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does whoever waits for a step: both are told. What the disk takes at last is applied by nobody."""
    monkeypatch.setattr(executor, "END_PATIENCE", 0.2)
    bob = await daemon.host("bob")
    await daemon.host("dora")
    hang = daemon.hang("bob")
    hang.begin()
    daemon.send("bob", "one")
    daemon.broadcast("all")
    await eventually(lambda: hang.waiting, "a step is in the disk")
    step = asyncio.create_task(bob.execute(lambda: bob.core.mark_read([], 1)))
    await daemon.mesh.names.unhost("bob")
    with pytest.raises(NotFound):
        await step
    daemon.broadcast("more")
    await eventually(has(daemon, "dora", "all", "more"), "dora has both")
    hang.let_go()
    await eventually(lambda: not hang.waiting, "the disk goes on")
    again = await daemon.host("bob")
    await eventually(has(daemon, "bob", "one", "all", "more"), "it has all")
    assert list(again.core.inbox.unread).count("one") == 1


async def test_a_job_that_the_disk_never_began_is_not_begun_after_the_end(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the disk's threads hang, and what waits behind them is a deregistered agent's."""
    monkeypatch.setattr(executor, "END_PATIENCE", 0.2)
    monkeypatch.setattr("meshd.disk.worker.MOST_THREADS", 4)
    bob = await daemon.host("bob")
    hang = daemon.hang("others")
    hang.begin()
    others = [asyncio.create_task(daemon.mesh._disk.run(hang.wait)) for _ in range(4)]
    await eventually(lambda: hang.waiting == 4, "all threads hang")
    daemon.send("bob", "one")
    await eventually(lambda: bob._executor._lock.locked(), "a step waits for a thread")
    before = daemon.journal("bob").read_bytes()
    ending = asyncio.create_task(daemon.mesh.names.unhost("bob"))
    await eventually(lambda: bob._executor._journal._file.fd == -1, "its files are closed")
    hang.let_go()
    await asyncio.gather(*others)
    with contextlib.suppress(MeshError):
        await ending
    await daemon.mesh._disk.run(lambda: None)
    assert daemon.journal("bob").read_bytes() == before


async def test_what_fails_while_an_agent_ends_is_no_trouble_of_the_next_one(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    """A trouble of an agent that is no more would never be over: nobody is well any more in its place."""
    bob = await daemon.host("bob")
    hang = daemon.hang("bob")
    hang.begin()
    daemon.send("bob", "one")
    await eventually(lambda: hang.waiting, "a step is in the disk")
    obstruct(daemon.journal("bob"))
    ending = asyncio.create_task(daemon.mesh.names.unhost("bob"))
    await eventually(lambda: bob.gone is not None, "it is ended")
    with caplog.at_level(logging.INFO, "meshd.agent"):
        hang.let_go()
        await ending
    clear(daemon.journal("bob"))
    assert [record.getMessage() for record in caplog.records if "cannot write" in record.getMessage()] == []
