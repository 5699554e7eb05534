"""The rate gate: observed by default, enforced when asked, always audited."""

from __future__ import annotations

from pathlib import Path

from tests.helper import Home, Store, a_home
from tests.mesh.peer import Peer


def verdicts(peer: Peer) -> list[tuple[str, str, str, str]]:
    return [(row["from"], row["to"], row["rate"], row["verdict"]) for row in peer.entries("gate:audit")]


def test_over_the_limit_is_delivered_and_audited_by_default(home: Home, peer: Peer) -> None:
    """40 within the window are allowed, the 41st is observed: sent, with a warning, and its row says so."""
    home.start()
    with home.rpc() as rpc:
        for _ in range(40):
            assert rpc.call("send", target="old", message="x", from_="alice")["over_limit"] is False
    done = home.run("send", "old", "x", "--from", "alice")
    assert (done.returncode, done.stdout[:5]) == (0, "sent ")
    assert "over the limit" in done.stderr
    assert peer.store.xlen(peer.key("to_old")) == 41
    assert verdicts(peer)[39:] == [("alice", "old", "40", "allow"), ("alice", "old", "41", "observe")]
    assert 0 < peer.ttl("gate:rate:alice->old") <= 10


def test_enforced_the_gate_denies(tmp_path: Path, server: Store, prefix: str, peer: Peer) -> None:
    """Exit 1, when to try again, a row `deny`, and nothing written; other targets and senders are not concerned."""
    variables = {"AGENT_MESH_GATE_ENFORCE": "1", "AGENT_MESH_GATE_LIMIT": "2", "AGENT_MESH_PREFIX": prefix}
    with a_home(tmp_path / "strict", server.url, **variables) as strict:
        strict.start()
        for _ in range(2):
            strict.meshctl("send", "old", "x", "--from", "alice")
        denied = strict.run("send", "old", "one more", "--from", "alice")
        assert denied.returncode == 1
        assert denied.stdout == ""
        assert "denied" in denied.stderr
        assert "try again in" in denied.stderr
        failed = strict.run("send", "old", "one more", "--from", "alice", "--json")
        assert '"kind": "denied"' in failed.stdout
        strict.meshctl("send", "old", "x", "--from", "bob")
        strict.meshctl("send", "older", "x", "--from", "alice")
        assert peer.store.xlen(peer.key("to_old")) == 3
        assert peer.store.xlen(peer.key("group")) == 4
        assert verdicts(peer) == [
            ("alice", "old", "1", "allow"),
            ("alice", "old", "2", "allow"),
            ("alice", "old", "3", "deny"),
            ("alice", "old", "4", "deny"),
            ("bob", "old", "1", "allow"),
            ("alice", "older", "1", "allow"),
        ]
        for _ in range(2):
            strict.meshctl("broadcast", "x", "--from", "alice")
        assert strict.run("broadcast", "x", "--from", "alice").returncode == 1
        assert strict.run("send", "old", "x", "--from", "alice", "--expect-reply").returncode == 1
        assert strict.meshctl("pending", "alice") == "(no pending entries)\n"


def test_a_counter_without_an_end_is_given_one(home: Home, peer: Peer) -> None:
    """A counter that lost its TTL would deny for ever: over the limit, it gets its window back."""
    home.start()
    peer.store.set(peer.key("gate:rate:alice->old"), 100)
    home.meshctl("send", "old", "x", "--from", "alice")
    assert 0 < peer.ttl("gate:rate:alice->old") <= 10


def test_repeating_an_id_counts_once(home: Home, peer: Peer) -> None:
    """The same id again is the same send: one entry, one count, one row, and the answer says so."""
    home.start()
    for again in (False, True, True):
        sent = home.json("send", "old", "x", "--from", "alice", "--id", "same-1")
        assert (sent["id"], sent["again"]) == ("same-1", again)
    assert peer.store.xlen(peer.key("to_old")) == peer.store.xlen(peer.key("group")) == 1
    assert verdicts(peer) == [("alice", "old", "1", "allow")]
