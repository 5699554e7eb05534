"""The notify log of one agent: what could not be written waits, and holds nothing up."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd import paths
from meshd.core.records import Batch, Read, Record
from meshd.disk.notify import NotifyLog
from meshd.receiving import arrivals
from meshd.receiving.executor import Executor
from meshd.receiving.health import NOTIFY
from meshd.receiving.notify_queue import NotifyQueue
from tests.helper import eventually
from tests.receiving.daemon import Daemon, has, obstructed


async def test_lines_wait_until_the_notify_log_can_be_written(daemon: Daemon) -> None:
    """In order, and the agent receives meanwhile."""
    bob = await daemon.host("bob")
    with obstructed(daemon.notify("bob")):
        for n in range(3):
            daemon.send("bob", f"m{n}")
            await eventually(has(daemon, "bob", f"m{n}"), "it is received")
        await eventually(lambda: bob.health.of(NOTIFY), "it is said")
    await eventually(lambda: len(daemon.lines("bob")) == 3, "the lines are there")
    assert [line.split()[-1] for line in daemon.lines("bob")] == ["[m0]", "[m1]", "[m2]"]
    await eventually(lambda: bob.health.trouble is None, "it is well")


async def test_lines_that_waited_when_the_daemon_ended_appear_with_no_further_mail(daemon: Daemon) -> None:
    """A start finds the log as broken as it was left, says so, and writes the last lines once it can."""
    await daemon.host("bob")
    with obstructed(daemon.notify("bob")):
        daemon.send("bob", "one")
        await eventually(has(daemon, "bob", "one"), "it is received")
        await daemon.stop()
        await daemon.start()
        await eventually(lambda: daemon.agent("bob").health.of(NOTIFY), "it is said")
    await eventually(lambda: len(daemon.lines("bob")) == 1, "the line is there")
    await eventually(lambda: daemon.agent("bob").health.trouble is None, "it is well")


async def test_the_first_watch_tells_of_a_message_whose_line_was_there_before_it(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is passed over as one of the past, and the message is not unread yet: the loop is late."""
    monkeypatch.setattr(arrivals, "_FRESH", 0.1)
    await daemon.host("bob")
    written, late = asyncio.Event(), asyncio.Event()
    on_disk = Executor._on_disk

    async def slowly(self: Executor, job: Any, sequel: Any = None) -> None:
        await on_disk(self, job, sequel)
        written.set()
        await late.wait()

    monkeypatch.setattr(Executor, "_on_disk", slowly)
    daemon.send("bob", "one")
    await written.wait()
    await eventually(lambda: daemon.lines("bob"), "its line is there")
    told: list[str] = []
    watching = asyncio.create_task(daemon.watch("bob", told))
    await eventually(Path(paths.watch_cursor("bob")).exists, "the watch has passed it over")
    late.set()
    await eventually(lambda: told == ["📨 1 unread from alice: meshctl inbox bob"], "it is told")
    watching.cancel()
    await asyncio.wait([watching])


# What a journal may end with: lines of a batch, or None for a record of another kind.
ends = st.lists(st.none() | st.lists(st.text("aä ", min_size=1, max_size=9), max_size=3), min_size=1, max_size=6)


def recovered(folder: str, records: list[Record], content: bytes) -> bytes:
    """The notify log that had this content at a crash, after the next start."""
    path = Path(folder) / "log"
    path.write_bytes(content)
    log = NotifyLog(str(path))
    nobody: Any = None
    NotifyQueue(log, nobody, nobody).recover(records)
    log.close()
    return path.read_bytes()


@given(ends=ends, before=st.integers(1, 99), cut=st.integers(0, 200))
def test_of_batches_that_waited_at_a_crash_each_is_told_once(
    ends: list[list[str] | None], before: int, cut: int
) -> None:
    """However many waited behind one another, and wherever the crash has cut the file."""
    whole, records = b"." * (before - 1) + b"\n", list[Record]()
    for lines in ends:
        if lines is None:
            records.append(Read(ids=["x"]))
        else:
            records.append(Batch(lines=lines, offset=len(whole)))
            whole += "".join(f"{line}\n" for line in lines).encode()
    with tempfile.TemporaryDirectory() as folder:
        assert recovered(folder, records, whole[: max(before, len(whole) - cut)]) == whole


def test_a_file_that_was_emptied_gets_the_last_batch_alone() -> None:
    first, last = Batch(lines=["one"], offset=0), Batch(lines=["two"], offset=4)
    with tempfile.TemporaryDirectory() as folder:
        assert recovered(folder, [first, last], b"") == b"two\n"
        assert recovered(folder, [first, last, Read(ids=["x"])], b"") == b""
        assert recovered(folder, [first, last], b"something else") == b"something elsetwo\n"
