"""events.subscribe: a snapshot, then numbered events; the slow are told and cut, never waited for."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.helper import Home, Store, wait_until


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """Events are the daemon's own: one kind of store is enough."""
    return mesh_store


def test_a_snapshot_comes_first_and_then_events_numbered_without_a_hole(home: Home) -> None:
    home.start()
    with home.rpc() as rpc, home.rpc() as actor:
        actor.call("up")  # the store has answered
        request = rpc.send("events.subscribe")
        first = rpc.read()
        assert first["method"] == "events.item"
        assert first["params"]["request"] == request
        snapshot = first["params"]["item"]
        assert snapshot["event"] == "snapshot"
        assert snapshot["status"]["agents"] == []
        actor.call("register", name="bob")
        actor.call("send", target="bob", message="hi", from_="alice")
        wait_until(lambda: actor.call("inbox", name="bob")["messages"], "bob has it")
        actor.call("hello")
        actor.call("deregister", name="bob")
        events: list[dict[str, Any]] = []
        while not events or events[-1]["event"] != "agent.deregistered":
            events.append(rpc.read()["params"]["item"])
        assert [event["seq"] for event in events] == list(range(snapshot["seq"] + 1, snapshot["seq"] + 1 + len(events)))
        kinds = [event["event"] for event in events]
        assert kinds[0] == "agent.registered"
        assert {"message.received", "agent.wake", "agent.read"} <= set(kinds)
        received = events[kinds.index("message.received")]
        assert (received["agent"], received["sender"], received["kind"]) == ("bob", "alice", "direct")
        assert "text" not in received  # an event carries no words of a peer


def test_a_subscriber_can_cancel_and_use_its_connection_for_something_else(home: Home) -> None:
    home.start()
    with home.rpc() as rpc:
        request = rpc.send("events.subscribe")
        rpc.read()
        rpc.call("cancel", id=request)
        assert rpc.call("hello")


def test_a_slow_subscriber_is_told_that_it_lagged_and_is_cut(home: Home) -> None:
    """It misses events and learns of it; whoever causes them never waits, and a second subscriber has them all."""
    home.start()
    with home.rpc() as slow, home.rpc() as quick, home.rpc() as actor:
        actor.call("up")
        request = slow.send("events.subscribe")
        assert slow.read()["params"]["item"]["event"] == "snapshot"
        quick.send("events.subscribe")
        last = quick.read()["params"]["item"]["seq"]
        seen = 0
        started = time.monotonic()
        while seen < 8000:
            for _ in range(100):
                actor.send("reload")
            for _ in range(100):
                assert actor.read()["result"]["said"] == "configuration read again"
            for _ in range(100):
                event = quick.read()["params"]["item"]
                assert event["seq"] == last + 1
                last = event["seq"]
            seen += 100
        assert time.monotonic() - started < 60
        events = []
        while (answer := slow.read()).get("id") != request:
            events.append(answer["params"]["item"])
        assert events[-1]["event"] == "lagged"
        numbers = [event["seq"] for event in events[:-1]]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # what it got has no hole
        assert len(numbers) < seen
        error = answer["error"]
        assert error["message"] == "this subscriber was too slow and has missed events"
        assert error["data"]["kind"] == "lagged"
        assert (error["data"]["hint"], error["data"]["retryable"]) == ("subscribe again", True)
        slow.send("events.subscribe")
        assert slow.read()["params"]["item"]["seq"] == last
