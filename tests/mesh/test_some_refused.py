"""What the store refuses to some, and to nobody else: it is counted, and who looks is told."""

from __future__ import annotations

from tests.doctor.checkup import checkup, named
from tests.helper import Home
from tests.mesh.peer import Peer


def test_a_refusal_that_only_some_meet_is_counted_and_named(home: Home, peer: Peer) -> None:
    """A counter of the pair that is no counter: others go on as if nothing were."""
    home.start()
    home.meshctl("register", "bob")
    assert home.json("status")["store"]["refusals"] == {}
    peer.store.lpush(peer.key("gate:rate:alice->bob"), "x")
    for _ in range(3):
        done = home.run("send", "bob", "x", "--from", "alice")
        assert done.returncode == 4
        assert "WRONGTYPE" in done.stderr
    home.meshctl("send", "bob", "x", "--from", "carol")

    status = home.json("status")
    refused = status["store"]["refusals"]["store_error"]
    assert refused["count"] == 3
    assert "WRONGTYPE" in refused["last"]
    assert not status["ok"]
    shown = home.meshctl("status")
    assert shown.startswith("works, but the store refuses some writes\n")
    assert "refused 3 times (store_error), the last " in shown
    assert 'mesh_store_refusals_total{kind="store_error"} 3\n' in home.meshctl("metrics")
    assert named(checkup(home), "since the daemon's start 3 writes met this: ", "warning")

    peer.store.delete(peer.key("gate:rate:alice->bob"))
    home.meshctl("send", "bob", "y", "--from", "alice")
    assert home.json("status")["store"]["refusals"]["store_error"]["count"] == 3
