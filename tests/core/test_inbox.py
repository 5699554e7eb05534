"""The inbox itself: what it knows of its stream."""

from __future__ import annotations

import pytest

from meshd.core.inbox import Inbox, StreamInfo
from meshd.core.records import Position


@pytest.mark.parametrize(
    ("cursor", "info", "lags"),
    [
        ("0-0", StreamInfo(0, 0, "0-0"), False),
        ("0-0", StreamInfo(1, 1, "5-1"), True),
        ("5-1", StreamInfo(1, 1, "5-1"), False),
        ("5-1", StreamInfo(2, 2, "10-0"), True),
        ("5-1", StreamInfo(0, 2, "10-0"), False),
    ],
)
def test_it_lags_while_the_stream_holds_what_was_not_taken_in(cursor: str, info: StreamInfo, lags: bool) -> None:
    inbox = Inbox()
    inbox.position = Position(cursor, 0)
    assert inbox.lags(info) is lags
