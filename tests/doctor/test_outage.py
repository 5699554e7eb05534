"""What a log is told of a trouble: its beginning and its end, also of one that comes and goes, or that many have."""

from __future__ import annotations

import logging

import pytest

from meshd.observing import outage
from meshd.observing.outage import Outage, Troubles
from tests.helper import eventually

log = logging.getLogger("test.outage")


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="test.outage")
    monkeypatch.setattr(outage, "STEADY", 0.2)
    return caplog


def said(lines: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} {record.getMessage().split(' after ')[0]}" for record in lines.records]


async def test_however_often_it_is_met_it_is_said_twice(lines: pytest.LogCaptureFixture) -> None:
    trouble = Outage(log)
    trouble.end("never began")
    for text in ("down: refused", "down: refused", "down: no route"):
        trouble.begin(text)
    assert trouble.lasts
    trouble.end("up again", "here")
    trouble.end("up again", "here")
    assert said(lines) == ["WARNING down: refused", "INFO up again"]
    assert lines.records[1].getMessage().endswith(" s: here")


async def test_what_comes_and_goes_is_over_when_it_stays_away(lines: pytest.LogCaptureFixture) -> None:
    """Twenty rounds are four lines."""
    trouble = Outage(log)
    for _ in range(20):
        trouble.begin("down")
        trouble.end("up again")
    assert said(lines) == ["WARNING down", "INFO up again", "WARNING down (it comes and goes)"]
    await eventually(lambda: not trouble.lasts, "it stayed away")
    assert said(lines)[3:] == ["INFO up again"]


async def test_of_many_that_have_it_the_first_begins_it_and_the_last_ends_it(lines: pytest.LogCaptureFixture) -> None:
    troubles = Troubles(log)
    for name in ("bob", "carol", "dave"):
        troubles.tell(name, "the disk is full")
    troubles.tell("eve", "something else")
    troubles.tell("carol", None)
    troubles.tell("carol", "the disk is full")
    for name in ("bob", "carol", "dave", "carol"):
        troubles.tell(name, None)
    assert said(lines) == ["ERROR bob: the disk is full", "ERROR eve: something else", "INFO over: the disk is full"]


async def test_troubles_that_are_over_are_forgotten() -> None:
    troubles = Troubles(log)
    for k in range(1000):
        troubles.tell("bob", f"trouble {k}")
    assert len(troubles._lasting) < 200
