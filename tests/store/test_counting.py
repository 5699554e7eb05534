"""How a send is counted, also by a store that has lost what it counted before."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.core.names import Keys
from meshd.core.wire import Outgoing
from meshd.store.scripts import sending
from tests.helper import Store


@pytest.mark.parametrize(
    ("counted", "floor", "ahead", "n"),
    [
        (None, 0, 0, 1),
        (None, 0, 3, 1),  # nothing is known of the pair, and those before may have been refused
        (5, 5, 0, 6),
        (7, 5, 2, 8),  # those before were counted
        (5, 5, 2, 6),  # and these were refused
        (None, 5, 0, 6),  # it has lost its count
        (None, 5, 2, 8),  # with two that are gone, and that its reader is to miss
        (3, 5, 2, 8),  # it went back
    ],
)
def test_what_a_store_has_lost_is_missing_in_its_counts(
    server: Store, prefix: str, counted: int | None, floor: int, ahead: int, n: int
) -> None:
    keys = Keys(prefix)
    with server.client() as client:
        raw: Any = client
        if counted is not None:
            raw.set(keys.count("5e", "alice", "bob"), counted)
        gate = sending.Gate(0, enforce=False)
        out = Outgoing("m1", "alice", "bob", "hello", private=True)
        made = sending.send(keys, out, sid="5e", floor=floor, ahead=ahead, gate=gate, digest="d", ts=1.0)
        sent = made.script.read(raw.eval(made.script.source, len(made.keys), *made.keys, *made.args))
        assert (sent.verdict, sent.n) == ("sent", n)
        assert dict(raw.xrange(keys.inbox("bob"))[0][1])[b"n"] == str(n).encode()
