"""Disk work off the event loop: whatever one job does, the loop and the others' jobs go on."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from meshd.disk.worker import MOST_THREADS, THREADS, DiskWorker
from tests.helper import DEADLINE, eventually


@pytest.fixture
def worker() -> Iterator[DiskWorker]:
    made = DiskWorker()
    yield made
    made.close()


class Hang:
    """Jobs that hang until they are let go, as in a disk that does not answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._go_on = threading.Event()
        self.begun = 0
        self.ended = 0

    def __call__(self) -> None:
        with self._lock:
            self.begun += 1
        assert self._go_on.wait(2 * DEADLINE)
        with self._lock:
            self.ended += 1

    def let_go(self) -> None:
        self._go_on.set()


@pytest.fixture
def hang() -> Iterator[Hang]:
    made = Hang()
    yield made
    made.let_go()


def threads() -> int:
    return sum(thread.name == "disk" for thread in threading.enumerate())


async def test_a_job_s_result_and_its_error_are_its_caller_s(worker: DiskWorker) -> None:
    """From a thread, never from the loop's."""
    assert await worker.run(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: "after that") == "after that"
    many = [worker.run(functools.partial(divmod, k, 7)) for k in range(500)]
    assert await asyncio.gather(*many) == [divmod(k, 7) for k in range(500)]
    assert worker.longest() == 0


async def test_a_job_that_hangs_stops_neither_the_loop_nor_other_jobs(worker: DiskWorker, hang: Hang) -> None:
    """Not even when far more hang than threads work at once: each is replaced."""
    hung = [asyncio.create_task(worker.run(hang)) for _ in range(4 * THREADS)]
    await eventually(lambda: hang.begun == len(hung), "all hang")
    assert [await worker.run(functools.partial(abs, -k)) for k in range(50)] == list(range(50))
    assert worker.longest() > 0
    assert not [task for task in hung if task.done()]
    hang.let_go()
    await asyncio.gather(*hung)
    await eventually(lambda: threads() <= THREADS, "extra threads end")
    assert await worker.run(lambda: 5) == 5


async def test_threads_are_bounded_and_what_waits_for_one_is_done_in_the_end(worker: DiskWorker, hang: Hang) -> None:
    jobs = [asyncio.create_task(worker.run(hang)) for _ in range(MOST_THREADS + 5)]
    await eventually(lambda: hang.begun == MOST_THREADS, "as many hang as there are threads")
    await eventually(lambda: threads() <= MOST_THREADS, "none of an earlier test is left")
    hang.let_go()
    await asyncio.gather(*jobs)
    assert hang.ended == len(jobs)


async def test_a_caller_that_is_cancelled_goes_on_when_its_thread_is_done(worker: DiskWorker, hang: Hang) -> None:
    """It would close the files that the thread works with. However often it is cancelled."""
    ended: list[int] = []

    async def caller() -> None:
        try:
            await worker.run(hang)
        finally:
            ended.append(hang.ended)

    task = asyncio.create_task(caller())
    await eventually(lambda: hang.begun, "it hangs")
    for _ in range(3):
        task.cancel()
        assert await worker.run(lambda: 1) == 1
    assert ended == []
    hang.let_go()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]


async def test_the_end_waits_for_a_job_that_hangs_but_not_for_ever(
    worker: DiskWorker, hang: Hang, caplog: pytest.LogCaptureFixture
) -> None:
    """Its caller gets an error; one that was cancelled ends; a job that was not begun is never begun; all is said."""
    waits = asyncio.create_task(worker.run(hang))
    cancelled = asyncio.create_task(worker.run(hang))
    await eventually(lambda: hang.begun == 2, "both hang")
    cancelled.cancel()
    worker.hurry(0.01)
    with pytest.raises(OSError, match="does not answer"):
        await waits
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(OSError, match="does not answer"):
        await worker.run(lambda: 1)
    worker.close()
    assert "gave no answer to 2 jobs" in caplog.text


async def test_jobs_that_end_in_time_are_hurried_by_nobody(
    worker: DiskWorker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.hurry(DEADLINE)
    assert await worker.run(lambda: 1) == 1
    worker.close()
    assert caplog.text == ""


def test_a_process_ends_while_a_thread_hangs() -> None:
    """No lock of the interpreter's end waits for it."""
    script = """
import asyncio, threading
from meshd.disk.worker import DiskWorker

async def main():
    worker, hangs = DiskWorker(), threading.Event()
    def hang():
        hangs.set()
        threading.Event().wait()
    task = asyncio.create_task(worker.run(hang))
    while not hangs.is_set():
        await asyncio.sleep(0)
    worker.hurry(0)
    try:
        await task
    except OSError as error:
        print(error.strerror)
    worker.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert done.stdout == "the disk does not answer\n"
    assert "1 jobs" in done.stderr


async def test_jobs_of_one_agent_keep_their_order_beside_another_that_hangs(worker: DiskWorker, hang: Hang) -> None:
    """Its lock lets one job in at a time; the threads that do them may change."""
    done: list[int] = []
    lock = asyncio.Lock()

    async def step(job: Callable[[], None]) -> None:
        async with lock:
            await worker.run(job)

    hung = [asyncio.create_task(worker.run(hang)) for _ in range(2 * THREADS)]
    await asyncio.gather(*(step(functools.partial(done.append, k)) for k in range(200)))
    assert done == list(range(200))
    hang.let_go()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*hung)
