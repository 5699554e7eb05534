"""When a reminder is due, whatever the wall clock is set to."""

from __future__ import annotations

import pytest

from meshd.core import ledger
from meshd.core.clock import Wall
from meshd.receiving.agent import Agent
from meshd.system import clock
from tests.helper import eventually
from tests.receiving.daemon import Daemon


class SetClock:
    """A wall clock that can be set: `ahead` seconds of the true one."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._true = clock.wall

    def __call__(self) -> Wall:
        return Wall(self._true() + self.ahead)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    made = SetClock()
    monkeypatch.setattr(clock, "wall", made)
    return made


async def owed(daemon: Daemon, within: float) -> Agent:
    """An agent that waits for a reply, for so many seconds."""
    agent = await daemon.host("bob")
    await agent.execute(lambda: agent.core.open_reply("question", "carol", "when?", clock.wall(), within))
    return agent


def asked_again(daemon: Daemon) -> int:
    """How many re-pings the store has."""
    return int(daemon.store.xlen(f"{daemon.prefix}:to_carol"))


async def test_a_clock_that_is_set_back_makes_nothing_later(
    daemon: Daemon, wall: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the first re-ping nor the next, which was wound up when the clock was still ahead."""
    monkeypatch.setattr(ledger, "PAUSES", (0.5, 1000.0, 0.0, 0.0))
    wall.ahead = 3600.0
    agent = await owed(daemon, 0.5)
    wall.ahead = 0.0
    await eventually(lambda: asked_again(daemon) == 1, "it is asked again")
    await eventually(lambda: not agent.core.ledger.entries["question"].unsent, "the next one is wound up")
    wall.ahead = -3600.0
    await eventually(lambda: asked_again(daemon) == 2, "and again")
    assert agent.core.ledger.entries["question"].pings == 2


async def test_setting_it_back_again_and_again_delays_nothing(daemon: Daemon, wall: SetClock) -> None:
    """Each look at the clocks keeps the smaller wait."""
    agent = await owed(daemon, 0.5)
    for _ in range(5):
        wall.ahead -= 1000.0
        agent.reminders.wind()
    await eventually(lambda: asked_again(daemon) == 1, "it is asked again")


async def test_a_clock_that_jumps_ahead_asks_once(daemon: Daemon, wall: SetClock) -> None:
    """However far, past how many pauses it may be; what follows is due its pause later."""
    agent = await owed(daemon, 1000.0)
    assert asked_again(daemon) == 0
    wall.ahead = 1e6
    agent.reminders.wind()  # as it is done by itself after `LOOK_AGAIN` seconds
    await eventually(lambda: asked_again(daemon) == 1, "it is asked again")
    entry = agent.core.ledger.entries["question"]
    await eventually(lambda: not entry.unsent, "that is written down")
    for _ in range(3):
        agent.reminders.wind()
        await daemon.inbox("bob")  # the store and the loop have had their turns
    assert asked_again(daemon) == 1
    assert entry.due == pytest.approx(clock.wall() + ledger.PAUSES[0], abs=ledger.PAUSES[0] / 2)
    wall.ahead = 0.0
    agent.reminders.wind()
    assert min(agent.reminders._due.values()) <= clock.mono() + ledger.PAUSES[0]
    await daemon.inbox("bob")
    assert asked_again(daemon) == 1


async def test_a_machine_that_slept_is_late_by_a_look_at_most(
    daemon: Daemon, wall: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody winds it up again: it looks by itself."""
    monkeypatch.setattr("meshd.receiving.reminders.LOOK_AGAIN", 0.05)
    await owed(daemon, 1000.0)
    wall.ahead = 2000.0
    await eventually(lambda: asked_again(daemon) == 1, "it is asked again")
