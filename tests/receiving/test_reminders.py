"""When a reminder is due, whatever the wall clock is set to."""

from __future__ import annotations

import msgspec
import pytest

from meshd.core import ledger
from meshd.core.clock import Wall
from meshd.core.ledger import Ledger, sent_repings
from meshd.core.wire import MAXLEN
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


def fill(daemon: Daemon) -> None:
    """The mailbox of carol, whom nobody hosts."""
    with daemon.store.pipeline(transaction=False) as pipe:
        for k in range(MAXLEN):
            pipe.xadd(f"{daemon.prefix}:to_carol", {"from": "old", "msg": "x", "ts": "1", "id": f"o{k}"})
        pipe.execute()


def make_room(daemon: Daemon) -> None:
    daemon.store.xtrim(f"{daemon.prefix}:to_carol", maxlen=MAXLEN - 10, approximate=False)


def repings(daemon: Daemon) -> list[str]:
    found = daemon.store.xrange(f"{daemon.prefix}:to_carol")
    return [fields[b"msg"].decode() for _, fields in found if fields[b"from"] == b"bob"]


async def test_a_re_ping_waits_for_room(daemon: Daemon) -> None:
    """It is tried until there is, is not counted before it was sent, and comes once."""
    fill(daemon)
    agent = await owed(daemon, 0.1)
    entry = agent.core.ledger.entries["question"]
    await eventually(lambda: agent.reminders._full_since, "there is no room for it")
    assert (sent_repings(entry), entry.unsent) == (0, True)
    make_room(daemon)
    await eventually(lambda: not entry.unsent, "it is sent")
    assert repings(daemon) == ["[re-ping 1/4] when?"]
    assert sent_repings(entry) == 1


async def test_a_re_ping_that_finds_no_room_is_said_and_the_next_one_comes_in_its_time(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it vanishes in silence; the escalation comes, and says how many were not sent."""
    monkeypatch.setattr(ledger, "PAUSES", (0.2, 0.2, 1000.0, 0.1))
    monkeypatch.setattr("meshd.receiving.reminders.PAUSES", (0.2, 0.2, 1000.0, 0.1))
    fill(daemon)
    agent = await owed(daemon, 0.1)
    entry = agent.core.ledger.entries["question"]
    await eventually(lambda: entry.pings == 3, "two could not be sent")
    assert (sent_repings(entry), entry.bounced) == (0, 2)

    def said() -> list[str]:
        return [line for line in daemon.lines("bob") if "was not sent: carol's mailbox is full: 2000 messages" in line]

    await eventually(lambda: len(said()) == 2, "both are said")
    assert [line.split()[:3] for line in said()] == [["⚠", "re-ping", "1/4"], ["⚠", "re-ping", "2/4"]]
    assert all(line.endswith("[question]") for line in said())
    make_room(daemon)
    await eventually(lambda: not entry.unsent, "the third is sent")
    assert repings(daemon) == ["[re-ping 3/4] when?"]
    assert sent_repings(entry) == 1
    assert Ledger()._action(msgspec.structs.replace(entry, pings=5)).text == (
        "[escalation] carol has not answered after 4 re-pings (2 could not be sent: its mailbox is full): when?"
    )


async def test_a_machine_that_slept_is_late_by_a_look_at_most(
    daemon: Daemon, wall: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody winds it up again: it looks by itself."""
    monkeypatch.setattr("meshd.receiving.reminders.LOOK_AGAIN", 0.05)
    await owed(daemon, 1000.0)
    wall.ahead = 2000.0
    await eventually(lambda: asked_again(daemon) == 1, "it is asked again")
