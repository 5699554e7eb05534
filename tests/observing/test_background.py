"""Tasks beside the work: none of them ends without a word, and what must go on goes on."""

from __future__ import annotations

import asyncio
import logging

import pytest

from meshd.observing.background import Background
from tests.helper import eventually

log = logging.getLogger("meshd.test")
FOREVER = 3600.0  # seconds: longer than any test


def said(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_what_fails_is_logged_once_with_its_name_its_traceback_and_its_fields(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise LookupError("no such thing")

    background = Background(log, {"agent": "bob"})
    with pytest.raises(LookupError):
        await background.start(fail(), "counting")
    await eventually(lambda: not background.running, "it is forgotten")
    (record,) = caplog.records
    assert record.getMessage() == "counting failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)
    assert record.__dict__["agent"] == "bob"


async def test_what_succeeds_or_is_cancelled_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def answer() -> int:
        return 7

    background = Background(log)
    assert await background.start(answer(), "answering") == 7
    waiting = background.start(forever(), "waiting")
    assert background.running == ["waiting"]
    background.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: not background.running, "it is forgotten")
    assert caplog.records == []


async def test_a_task_whose_future_was_cancelled_by_another_does_not_end_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A cancellation that nobody asked this task for is a failure of it."""
    future = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await future

    background = Background(log)
    background.start(wait(), "waiting")
    await asyncio.sleep(0)
    future.cancel()
    await background.join()
    assert said(caplog) == ["waiting ended: what it waited for was cancelled"]


async def test_kept_work_is_started_again_and_is_told_until_it_has_lasted(caplog: pytest.LogCaptureFixture) -> None:
    tries = 0
    fails = True

    async def work() -> None:
        nonlocal tries
        tries += 1
        if fails:
            raise LookupError("no such thing")
        await forever()

    background = Background(log, steady=0.2)
    background.keep(work, "counting")
    await eventually(lambda: tries == 3, "it is started again after each failure")
    assert background.failing == {"counting": "counting failed and is started again; see the log"}
    assert said(caplog) == ["counting failed and is started again; see the log"]  # once, however often it is met
    fails = False
    await eventually(lambda: tries > 3, "it is started once more")
    again = tries
    await eventually(lambda: not background.failing, "it has lasted")
    assert tries == again
    assert background.running == ["counting"]
    await background.end()


async def test_kept_work_that_fails_in_another_way_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [LookupError(), LookupError(), ZeroDivisionError()]

    async def work() -> None:
        if errors:
            raise errors.pop(0)

    background = Background(log)
    await background.keep(work, "counting")
    kinds = [type(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert kinds == [LookupError, ZeroDivisionError]


async def test_kept_work_goes_on_after_a_cancellation_that_nobody_asked_it_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: list[asyncio.Future[None]] = []

    async def work() -> None:
        tries.append(asyncio.get_running_loop().create_future())
        await tries[-1]

    background = Background(log)
    task = background.keep(work, "waiting")
    await eventually(lambda: len(tries) == 1, "it has begun")
    tries[0].cancel()
    await eventually(lambda: len(tries) == 2, "it is started again")
    assert list(background.failing) == ["waiting"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said(caplog) == ["waiting failed and is started again; see the log"]


async def test_kept_work_that_returns_is_done_and_fails_no_more() -> None:
    fails = [True, False]

    async def work() -> None:
        if fails.pop(0):
            raise LookupError

    background = Background(log, steady=FOREVER)
    await background.keep(work, "counting")
    assert fails == []
    assert background.failing == {}
    assert background.running == []


async def test_join_waits_for_what_is_started_meanwhile() -> None:
    background = Background(log)
    done: list[str] = []

    async def second() -> None:
        done.append("second")

    async def first() -> None:
        background.start(second(), "second")

    background.start(first(), "first")
    await background.join()
    assert done == ["second"]


async def test_end_ends_all_kept_work_too_and_what_they_start_at_their_end() -> None:
    background = Background(log)
    begun = asyncio.Event()

    async def stubborn() -> None:
        try:
            begun.set()
            await forever()
        finally:
            background.start(forever(), "last")

    async def failing() -> None:
        raise LookupError

    tasks = [background.start(stubborn(), "stubborn"), background.keep(failing, "failing")]
    await begun.wait()
    await eventually(lambda: background.failing, "it has failed")
    await background.end()
    assert all(task.cancelled() for task in tasks)
    assert background.running == []
    assert background.failing == {}
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("stubborn", "failing", "last")]
