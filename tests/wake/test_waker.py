"""The waker on a real event loop: it rings in the turn of the loop after the mail, with what is unread by then."""

from __future__ import annotations

import asyncio

import pytest

from meshd.core.message import Message
from meshd.core.unread import UnreadMail
from meshd.core.wake import SETTLE
from meshd.observing.events import EventHub
from meshd.waking.waker import Waker


class Session:
    """An idle session with one rung; `said` has the line of each ring."""

    def __init__(self) -> None:
        self.unread = UnreadMail()
        self.said: list[str] = []
        self.waker = Waker("bob", self.unread, EventHub())
        self.waker.arm("socket", self.said.append, SETTLE)

    def get(self, *senders: str, awaited: bool = False) -> None:
        """One batch of mail."""
        for sender in senders:
            number = len(self.unread)
            self.unread.add(Message(id=str(number), sender=sender, text="", ts=0.0, at=f"{number}-0"))
        self.waker.mail(awaited=awaited)

    def read(self) -> None:
        self.unread.clear()
        self.waker.read(0)


@pytest.fixture
async def session() -> Session:
    return Session()


async def turns() -> None:
    """A few turns of the loop: enough for a timer that is due, far less than any wait."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_mail_after_a_silence_is_rung_for_in_the_same_turn(session: Session) -> None:
    session.get("alice")
    await turns()
    assert session.said == ["agent-mesh: 1 unread from alice: call mesh_inbox"]


async def test_the_line_says_what_is_unread_when_it_is_rung(session: Session) -> None:
    """Two batches of one turn of the loop, as those of the two streams, are one ring that tells of both."""
    session.get("alice", "carol")
    session.get("dave")
    await turns()
    assert session.said == ["agent-mesh: 3 unread from alice, carol, dave: call mesh_inbox"]


async def test_what_comes_behind_a_ring_is_gathered_until_a_read(session: Session) -> None:
    for _ in range(10):
        session.get("alice")
        await turns()
    assert len(session.said) == 1
    session.read()
    session.get("carol")
    await turns()
    assert session.said[1:] == ["agent-mesh: 1 unread from carol: call mesh_inbox"]


async def test_mail_that_is_read_in_the_same_turn_is_not_rung_for(session: Session) -> None:
    session.get("alice")
    session.read()
    await turns()
    assert session.said == []


async def test_mail_that_somebody_waits_for_is_not_rung_for_at_once(session: Session) -> None:
    session.get("alice", awaited=True)
    await turns()
    assert session.said == []
    session.read()
    session.get("carol")
    await turns()
    assert session.said == ["agent-mesh: 1 unread from carol: call mesh_inbox"]
