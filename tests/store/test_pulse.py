"""When a wait for the store is ended: on an event loop whose time passes as soon as nobody has anything to do."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.store.pulse import BLOCK, NOTICED, Pulse

LONGEST = 20.0


class _Hurried(selectors.DefaultSelector):
    """Never waits: the time for which it was asked to wait has passed."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout:
            self.skipped += timeout
        return found


class HurriedLoop(asyncio.SelectorEventLoop):
    """Its time is that of its timers, and nothing of the machine's."""

    def __init__(self) -> None:
        self._hurried = _Hurried()
        super().__init__(self._hurried)

    def time(self) -> float:
        return self._hurried.skipped


def run(work: Coroutine[Any, Any, float | None]) -> float | None:
    loop = HurriedLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def ended_after(pulse: Pulse, reply: float | None, came: Callable[[], int] = lambda: 0) -> float | None:
    """Seconds until a wait was ended in vain; None if the reply came before, after so many seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with pulse.wait(LONGEST, came):
            await asyncio.sleep(reply) if reply is not None else await loop.create_future()
    except TimeoutError:
        return loop.time() - began
    return None


def later(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(max(0.0, seconds), call)


@given(answers=st.floats(0.0, 0.3))
def test_a_way_that_is_dead_while_the_store_lives_is_left_in_time(answers: float) -> None:
    """Within 5 s of its question, however soon the store answers whoever asks for it."""

    async def work() -> float | None:
        pulse = Pulse()
        pulse.ask = functools.partial(later, answers, pulse.beat)
        return await ended_after(pulse, None)

    ended = run(work())
    assert ended is not None
    assert BLOCK < ended <= NOTICED + 0.2 * (answers >= 0.2) + 1e-6 < 5.01


@given(stopped=st.floats(0, LONGEST - BLOCK - 1), after=st.floats(0, 0.19))
def test_a_store_that_is_slow_for_everybody_is_waited_for(stopped: float, after: float) -> None:
    """Its answer to who asks for it comes at about the time of all others; what is then answered is not left."""

    async def work() -> float | None:
        pulse, loop = Pulse(), asyncio.get_running_loop()
        goes_on = loop.time() + BLOCK + stopped
        pulse.ask = lambda: later(goes_on - loop.time(), pulse.beat)
        return await ended_after(pulse, BLOCK + stopped + after)

    assert run(work()) is None


def test_a_reply_that_is_on_its_way_is_waited_for() -> None:
    """Some bytes of it come now and then, while others are answered at once."""

    async def work() -> float | None:
        pulse, loop = Pulse(), asyncio.get_running_loop()
        pulse.ask = pulse.beat
        return await ended_after(pulse, 15, lambda: int(loop.time() * 10))

    assert run(work()) is None


def test_nobody_waits_for_ever() -> None:
    """Also where nobody can be asked."""
    ended = run(ended_after(Pulse(), None))
    assert ended is not None
    assert LONGEST <= ended <= LONGEST + 1


@pytest.mark.parametrize("many", [1, 1000])
def test_all_waits_end_with_the_store(many: int) -> None:
    async def work() -> float | None:
        pulse, loop = Pulse(), asyncio.get_running_loop()
        loop.call_later(1, pulse.end_all)
        found = await asyncio.gather(*(ended_after(pulse, None) for _ in range(many)))
        assert set(found) == {1.0}
        assert not pulse.waits
        return None

    run(work())


@settings(deadline=None)
@given(pauses=st.lists(st.floats(0.1, BLOCK), min_size=1, max_size=20))
def test_what_is_asked_again_is_late_anew(pauses: list[float]) -> None:
    """However often the answer was "nothing", the last question's is waited for as long as the first one's."""

    async def work() -> float | None:
        pulse, loop = Pulse(), asyncio.get_running_loop()
        pulse.ask = pulse.beat
        began = loop.time()
        try:
            async with pulse.wait(LONGEST) as wait:
                for pause in pauses:
                    await asyncio.sleep(pause)
                    wait.again()
                await loop.create_future()
        except TimeoutError:
            return loop.time() - began - sum(pauses)
        return None

    ended = run(work())
    assert ended is not None
    assert BLOCK < ended <= NOTICED + 0.01
