"""Order per sender and target, whatever happens between a send and its acknowledgement."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.sending.counts import SendCounts
from tests.helper import Home, Rpc, Store, a_home, program, wait_until

SENDS = 3000


def _texts(home: Home, name: str) -> list[str]:
    return [message["text"] for message in home.json("inbox", name, "--limit", "10000")["messages"]]


def _pipeline(rpc: Rpc, sends: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write all sends without waiting, then read the answers, by the order of the sends."""
    writer = threading.Thread(target=lambda: [rpc.send("send", **params) for params in sends])
    first = rpc._id + 1
    writer.start()
    answers = {answer["id"]: answer for answer in (rpc.read() for _ in sends)}
    writer.join()
    return [answers[first + k] for k in range(len(sends))]


def test_a_send_that_expects_a_reply_is_not_overtaken(home: Home) -> None:
    """It waits for the disk before it leaves; a plain one behind it on the same connection waits with it."""
    home.start()
    home.meshctl("register", "alice")
    home.meshctl("register", "bob")
    sends = [
        {"target": "bob", "message": str(k), "from_": "alice", "expect_reply": k % 3 == 0, "private": True}
        for k in range(60)
    ]
    with home.rpc() as rpc:
        assert all("result" in answer for answer in _pipeline(rpc, sends))
    assert _texts(home, "bob") == [str(k) for k in range(60)]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_pipelined_sends_keep_their_order_across_an_outage(kind: str, tmp_path: Path) -> None:
    """The store dies and comes back under a stream of sends: what was acknowledged arrives once, in order."""
    store = Store(program(kind), tmp_path, "--appendonly", "yes")
    try:
        with a_home(tmp_path / "home", store.url, AGENT_MESH_GATE_LIMIT="1000000") as home:
            home.start()
            home.meshctl("register", "bob")
            sends = [{"target": "bob", "message": str(k), "from_": "alice", "private": True} for k in range(SENDS)]
            with home.rpc() as rpc, home.rpc() as watcher:

                def break_it() -> None:
                    for arrived in (SENDS // 4, SENDS // 2):
                        wait_until(functools.partial(_more_than, watcher, arrived), "some have arrived")
                        store.kill()
                        store.start()

                breaker = threading.Thread(target=break_it)
                breaker.start()
                answers = _pipeline(rpc, sends)
                breaker.join()
            acknowledged = [k for k, answer in enumerate(answers) if "result" in answer]
            assert len(acknowledged) > SENDS // 2
            numbers = [int(text) for text in _texts(home, "bob")]
            assert numbers == sorted(set(numbers))
            assert set(acknowledged) <= set(numbers)
    finally:
        store.close()


def _more_than(rpc: Rpc, count: int) -> bool:
    return int(rpc.call("status")["agents"][0]["unread"]) > count


@given(pairs=st.lists(st.integers(0, 9), max_size=60), kept=st.integers(1, 6))
def test_the_counts_that_are_forgotten_are_those_used_longest_ago(pairs: list[int], kept: int) -> None:
    """Of the pairs that were used last none is, however many there are."""
    counts = SendCounts(kept)
    for number, pair in enumerate(pairs, 1):
        counts.counted(("alice", str(pair)), number)
        used = list(dict.fromkeys(reversed(pairs[:number])))
        for place, other in enumerate(used):
            known = number - pairs[:number][::-1].index(other)
            assert counts.last(("alice", str(other))) == (known if place < kept else 0)
