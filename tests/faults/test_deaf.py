"""Ways to the store that end without a word: who waits there notices, says so, and receives again by itself.

No connection that was forgotten ever heals here, so that only another one can bring what comes.
"""

from __future__ import annotations

import functools
import time

import pytest

from tests.faults.machines import Machine
from tests.faults.two import Two, received
from tests.helper import Store, wait_until
from tests.store.servers import is_up

NAMES = [f"bob{n}" for n in range(10)]
# Seconds in which it is noticed and mended even on a busy machine. A reader that waits for its block alone needs 20.
NOTICED = 15


def readers(store: Store) -> dict[str, str]:
    """Connections that wait for entries, as the store numbers them, with what they said last."""
    with store.client() as client:
        return {found["id"]: found["cmd"] for found in client.client_list() if found["cmd"] == "xread"}


def connected(store: Store) -> set[str]:
    """All connections, as the store numbers them."""
    with store.client() as client:
        return {found["id"] for found in client.client_list()}


def receiving(machine: Machine) -> list[str]:
    with machine.home.rpc() as rpc:
        return [agent["name"] for agent in rpc.call("status")["agents"] if agent["state"] == "receiving"]


def is_down(machine: Machine) -> bool:
    return not is_up(machine.home)


def all_receive(machine: Machine) -> None:
    wait_until(lambda: set(receiving(machine)) == set(NAMES), "all agents receive", 30)


@pytest.mark.timeout(180)
def test_readers_whose_ways_were_forgotten_receive_again(two: Two) -> None:
    """The store and the daemon's other connections are well: nobody else tells them."""
    a, b, _ = two
    for name in NAMES:
        b.register(name)
    all_receive(b)
    forgotten = b.way.forget(b"STREAMS\r\n$12\r\nmesh:to_bob")
    assert forgotten == len(NAMES)
    for name in NAMES:
        a.send(name, [f"{name}-1"])
    for name in NAMES:
        received(b, name, 1, NOTICED)
    assert is_up(b.home)
    assert set(receiving(b)) == set(NAMES)


@pytest.mark.timeout(180)
def test_broadcasts_and_answers_come_by_ways_that_are_whole(two: Two) -> None:
    """The reader of the group, and a request that waits for its reply."""
    a, b, store = two
    b.register("bob0")
    with b.home.rpc() as asking, store.client() as client:
        request = asking.send("request", target="alice", message="?", from_="bob0", timeout=60)
        entry = wait_until(lambda: client.xrange("mesh:to_alice"), "it is asked")[0][1]
        reply = b"STREAMS\r\n$43\r\nmesh:reply:" + entry[b"id"]
        wait_until(lambda: b.way.forget(reply), "its reply is waited for")
        wait_until(lambda: b.way.forget(b"STREAMS\r\n$10\r\nmesh:group"), "broadcasts are waited for")
        a.home.meshctl("broadcast", "all", "--from", "alice")
        a.home.meshctl("reply", entry[b"reply_to"].decode(), "42", "--from", "alice")
        received(b, "bob0", 1, NOTICED)
        while (answer := asking.read()).get("id") != request:
            pass
    assert answer["result"]["reply"] == "42"


@pytest.mark.timeout(180)
def test_a_way_that_swallows_all_is_noticed_while_nobody_says_anything(two: Two) -> None:
    """Neither a send nor mail tells of it: the daemon finds out by itself, and `status` says so of every agent. When
    the way is whole again all receive, by new connections; those that hang never come back."""
    a, b, _ = two
    for name in NAMES:
        b.register(name)
    all_receive(b)
    b.way.half_open()
    wait_until(lambda: is_down(b), "it is noticed", NOTICED)
    assert receiving(b) == []
    for name in NAMES:
        a.send(name, [f"{name}-1"])
    b.way.heal()
    for name in NAMES:
        received(b, name, 1, NOTICED)
    all_receive(b)


@pytest.mark.timeout(180)
def test_a_store_that_is_slow_for_a_second_is_not_left(two: Two) -> None:
    """As many connections as there are agents would be opened anew, all at once, and make it slower."""
    a, b, store = two
    for name in NAMES:
        b.register(name)
    all_receive(b)
    before = wait_until(lambda: len(found := readers(store)) > len(NAMES) and found, "all wait")
    for _ in range(3):
        store.pause()
        time.sleep(1.2)  # the time is what is tested
        store.resume()
        time.sleep(1.2)
    for name in NAMES:
        a.send(name, [f"{name}-1"])
        received(b, name, 1)
    assert set(before) <= connected(store)


@pytest.mark.timeout(180)
def test_a_store_that_is_stopped_is_noticed_and_found_again(two: Two) -> None:
    """Its connections stand, and the kernel takes new ones in its place."""
    a, b, store = two
    for name in NAMES:
        b.register(name)
    all_receive(b)
    store.pause()
    try:
        for machine in (a, b):
            wait_until(functools.partial(is_down, machine), f"{machine.label} notices", NOTICED)
        assert receiving(b) == []
    finally:
        store.resume()
    for name in NAMES:
        a.send(name, [f"{name}-1"])
        received(b, name, 1, NOTICED)
