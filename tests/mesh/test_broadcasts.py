"""Broadcasts reach who was away, however much others have said to each other meanwhile."""

from __future__ import annotations

import pytest

from tests.helper import Home, wait_until
from tests.mesh.peer import Peer, hosted, texts


def chatter(peer: Peer, number: int = 3000) -> None:
    """Copies of messages between two others, as they stand in the group."""
    with peer.store.pipeline(transaction=False) as pipeline:
        for k in range(number):
            fields = {"from": "carol", "to": "dave", "msg": "x", "ts": "1", "id": f"chat{k}"}
            pipeline.xadd(peer.key("group"), fields, maxlen=2000, approximate=True)
        pipeline.execute()


@pytest.mark.parametrize("met", [True, False])
def test_who_was_away_has_them_all_in_order(home: Home, other: Home, peer: Peer, met: bool) -> None:
    """Also from a sender never met before, whose daemon was started again meanwhile; and a 0.1 program's in between."""
    home.start()
    other.start()
    home.meshctl("register", "bob")
    if met:
        other.meshctl("broadcast", "0", "--from", "alice")
        wait_until(lambda: texts(home, "bob") == ["0"], "they have met")
    home.stop()
    for text in ("1", "2"):
        other.meshctl("broadcast", text, "--from", "alice")
    chatter(peer)
    assert len([entry for entry in peer.entries("group") if entry["to"] == "*"]) == 0
    peer.broadcast("3")
    other.kill()
    other.start()
    other.meshctl("broadcast", "4", "--from", "alice")
    home.start()
    wait_until(lambda: len(texts(home, "bob", peek=True)) >= 4, "all have come")
    other.meshctl("broadcast", "5", "--from", "alice")
    wait_until(lambda: len(texts(home, "bob", peek=True)) >= 5, "what comes then, too")
    assert texts(home, "bob") == ["1", "2", "3", "4", "5"]
    agent = hosted(home, "bob")
    assert agent is not None
    assert agent["lost"] == 0


def test_a_daemon_that_was_stopped_has_them_too(home: Home, other: Home, peer: Peer) -> None:
    """It goes on reading where it was, on a connection that has stood all the time."""
    daemon = home.start()
    other.start()
    home.meshctl("register", "bob")
    other.meshctl("broadcast", "0", "--from", "alice")
    wait_until(lambda: texts(home, "bob") == ["0"], "it receives")
    daemon.send_signal(19)
    try:
        chatter(peer, 600)  # what was asked for before is answered with the first of these
        other.meshctl("broadcast", "1", "--from", "alice")
        chatter(peer)
    finally:
        daemon.send_signal(18)
    other.meshctl("broadcast", "2", "--from", "alice")
    wait_until(lambda: len(texts(home, "bob", peek=True)) >= 2, "they have come")
    assert texts(home, "bob") == ["1", "2"]


def test_they_stand_under_one_entry_id_in_the_group_and_alone(home: Home, peer: Peer) -> None:
    """So that one cursor counts for both; when the group went back, under another one."""
    home.start()
    home.meshctl("broadcast", "1", "--from", "alice")
    home.meshctl("send", "bob", "to bob", "--from", "alice")
    (one,) = peer.store.xrange(peer.key("all"))
    assert one == peer.store.xrange(peer.key("group"))[0]
    peer.store.delete(peer.key("group"))
    last = f"{2**63}-0"
    peer.store.xadd(peer.key("all"), {"from": "alice", "msg": "far", "to": "*"}, id=last)
    home.meshctl("register", "carol")
    home.meshctl("broadcast", "2", "--from", "alice")
    assert [entry["msg"] for entry in peer.entries("all")] == ["1", "far", "2"]
    wait_until(lambda: texts(home, "carol", peek=True)[-1:] == ["2"], "it is received")
