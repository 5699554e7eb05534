"""What the store took is counted and told, once; and receiving goes on, whatever happened to the stream."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.helper import Home, wait_until
from tests.mesh.peer import Peer, hosted, receiving, texts, wait_for_texts


def lost(home: Home, name: str) -> tuple[int, int, int]:
    """The count in `status`, in the inbox (not read yet), and the sum over the notify log's lines."""
    agent = hosted(home, name)
    assert agent is not None
    with home.rpc() as rpc:
        untold = rpc.call("inbox", name=name, peek=True)["lost"]
    lines = [line.split() for line in home.notify_lines(name)]
    return agent["lost"], untold, sum(int(words[2]) for words in lines if words[:2] == ["⚠", "LOST"])


def flood(peer: Peer, name: str, count: int) -> None:
    """Many 0.1 messages in one go."""
    with peer.store.pipeline(transaction=False) as pipe:
        for n in range(count):
            fields = {"from": "old", "msg": str(n), "ts": f"{time.time():.6f}", "id": f"f{n}"}
            pipe.xadd(peer.key(f"to_{name}"), fields, maxlen=2000, approximate=True)
        pipe.execute()


def test_what_was_trimmed_while_the_daemon_was_down_is_told_exactly(home: Home, peer: Peer) -> None:
    """`LOST n` in status, inbox and notify log, n being what the store did not hold any more; told once."""
    home.start()
    home.meshctl("register", "bob")
    peer.send("bob", "before")
    assert home.meshctl("listen", "bob", "--timeout", "15") == "[DIRECT from old] before\n"
    home.kill()
    flood(peer, "bob", 2750)
    kept = peer.store.xlen(peer.key("to_bob"))
    missing = 2750 - kept
    assert missing > 500
    home.start()
    wait_until(lambda: receiving(home, "bob"), "bob has caught up")
    assert lost(home, "bob") == (missing, missing, missing)
    shown = home.meshctl("inbox", "bob", "--limit", "3")
    assert shown.splitlines() == [f"⚠ LOST {missing} messages to bob"] + [
        f"[DIRECT from old] {n}" for n in range(missing, missing + 3)
    ]
    assert f"{missing}" in home.meshctl("status")
    assert "LOST" not in home.meshctl("inbox", "bob", "--limit", "3")
    home.kill()
    home.start()
    wait_until(lambda: receiving(home, "bob"), "bob is back")
    assert lost(home, "bob") == (missing, 0, missing)


@pytest.mark.parametrize("how", ["FLUSHALL", "DEL"])
def test_a_stream_that_vanishes_while_running(how: str, home: Home, other: Home, peer: Peer) -> None:
    """Nothing that was received goes, nothing comes twice, what is sent afterwards arrives, nothing is called lost."""
    home.start()
    other.start()
    home.meshctl("register", "bob")
    with other.rpc() as rpc:
        for n in range(5):
            rpc.call("send", target="bob", message=f"before {n}", from_="alice")
        wait_until(lambda: len(texts(home, "bob", peek=True)) == 5, "five are received")
        peer.store.execute_command(*([how] if how == "FLUSHALL" else [how, peer.key("to_bob")]))
        for n in range(3):
            rpc.call("send", target="bob", message=f"after {n}", from_="alice")
    expected = [f"before {n}" for n in range(5)] + [f"after {n}" for n in range(3)]
    wait_until(lambda: texts(home, "bob", peek=True) == expected, "all are received")
    assert lost(home, "bob") == (0, 0, 0)
    home.kill()
    home.start()
    wait_until(lambda: receiving(home, "bob"), "bob is back")
    home.meshctl("send", "bob", "last", "--from", "carol")
    wait_until(lambda: texts(home, "bob", peek=True) == [*expected, "last"], "the last one is received")
    assert lost(home, "bob") == (0, 0, 0)


@pytest.mark.parametrize("again", [2, 9])
def test_a_stream_that_was_emptied_while_the_daemon_was_down(again: int, home: Home, other: Home, peer: Peer) -> None:
    """What the senders' counts miss is the loss, whether fewer or more messages came afterwards than before."""
    home.start()
    other.start()
    home.meshctl("register", "bob")
    with other.rpc() as rpc:
        for n in range(5):
            rpc.call("send", target="bob", message=f"before {n}", from_="alice")
        wait_until(lambda: len(texts(home, "bob", peek=True)) == 5, "five are received")
        home.kill()
        for n in range(4):
            rpc.call("send", target="bob", message=f"gone {n}", from_="alice")
        peer.store.flushall()
        for n in range(again):
            rpc.call("send", target="bob", message=f"after {n}", from_="alice")
    home.start()
    expected = [f"before {n}" for n in range(5)] + [f"after {n}" for n in range(again)]
    wait_until(lambda: texts(home, "bob", peek=True) == expected, "all that is left is received")
    assert lost(home, "bob") == (4, 4, 4)


@pytest.mark.parametrize("running", [True, False])
def test_an_older_store_that_was_restored(running: bool, home: Home, other: Home, peer: Peer) -> None:
    """The store goes back by three messages that were received: no second copy, and the mail behind arrives."""
    home.start()
    other.start()
    home.meshctl("register", "bob")
    with other.rpc() as rpc:

        def send(*words: str) -> None:
            for word in words:
                rpc.call("send", target="bob", message=word, from_="alice")

        send("1", "2")
        keys: dict[bytes, Any] = {key: peer.store.dump(key) for key in peer.store.keys(f"{peer.prefix}:*")}
        send("3", "4", "5")
        wait_until(lambda: len(texts(home, "bob", peek=True)) == 5, "five are received")
        if not running:
            home.kill()
            send("6", "7")
        peer.store.delete(*peer.store.keys(f"{peer.prefix}:*"))
        for key, value in keys.items():
            peer.store.restore(key, 0 if b":to_" in key or b":group" in key else 60_000, value)
        send("8", "9")
    if not running:
        home.start()
    expected = ["1", "2", "3", "4", "5", "8", "9"]
    wait_until(lambda: texts(home, "bob", peek=True) == expected, "all are received, none twice")
    gone = 0 if running else 2
    assert lost(home, "bob") == (gone, gone, gone)


def test_a_loss_after_a_trim_is_told_as_well(home: Home, other: Home, peer: Peer) -> None:
    """What was trimmed were an old program's messages: they explain no gap of a sender that has written since."""
    home.start()
    other.start()
    home.meshctl("register", "bob")
    with other.rpc() as rpc:

        def send(word: str) -> None:
            rpc.call("send", target="bob", message=word, from_="alice")

        send("1")
        wait_until(lambda: texts(home, "bob") == ["1"], "the first is read")
        home.kill()
        flood(peer, "bob", 2100)
        peer.store.xtrim(peer.key("to_bob"), maxlen=2000, approximate=False)
        home.start()
        wait_until(lambda: receiving(home, "bob"), "bob has caught up")
        assert lost(home, "bob")[0] == 100
        send("2")
        wait_until(lambda: texts(home, "bob")[-1:] == ["2"], "the second is read")
        wait_until(lambda: not texts(home, "bob", peek=True), "that is on the disk")
        home.kill()
        send("gone")
        send("gone too")
        peer.store.delete(peer.key("to_bob"))
        send("3")
    home.start()
    wait_until(lambda: texts(home, "bob", peek=True) == ["3"], "the third is received")
    assert lost(home, "bob") == (102, 2, 102)


def test_a_message_over_this_daemon_s_limit_is_quarantined_and_not_lost(home: Home, other: Home) -> None:
    """Its sender's daemon has a higher limit. Private mail and broadcasts."""
    home.start()
    home.meshctl("register", "bob")
    other.env["AGENT_MESH_MAX_MESSAGE"] = "200000"
    other.start()
    long = "x" * 100_000
    for text in ("1", long, "2"):
        other.meshctl("send", "bob", "-", "--from", "alice", stdin=text)
        other.meshctl("broadcast", "-", "--from", "alice", stdin=text)
    wait_until(lambda: sorted(texts(home, "bob", peek=True)) == ["1", "1", "2", "2"], "the short ones are received")
    assert lost(home, "bob") == (0, 0, 0)
    assert len([line for line in home.notify_lines("bob") if "QUARANTINED" in line]) == 2


def test_a_stream_that_went_back_and_is_still_behind(home: Home, peer: Peer) -> None:
    """The last id of the stream is below the cursor: what 0.1 writes there with ids of its own still arrives."""
    home.start()
    home.meshctl("register", "bob")
    peer.send("bob", "ahead")
    wait_until(lambda: texts(home, "bob", peek=True) == ["ahead"], "the first is received")
    home.kill()
    peer.store.delete(peer.key("to_bob"))
    peer.store.xadd(peer.key("to_bob"), {"from": "old", "msg": "behind", "id": "x1"}, id="5-1")
    home.start()
    wait_until(lambda: texts(home, "bob", peek=True) == ["ahead", "behind"], "the one behind is received")
    peer.store.xadd(peer.key("to_bob"), {"from": "old", "msg": "behind too", "id": "x2"}, id="6-1")
    wait_until(lambda: texts(home, "bob", peek=True) == ["ahead", "behind", "behind too"], "and the next")


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("read", [False, True])
def test_what_a_damaged_journal_has_lost_is_read_again(home: Home, peer: Peer, read: bool, gone: bool) -> None:
    """What the store has no more is told as lost, unless the journal tells that it was read. Broadcasts, too."""
    home.start()
    home.meshctl("register", "bob")
    for n in range(1, 6):
        home.meshctl("send", "bob", f"p{n}", "--from", "alice")
        home.meshctl("broadcast", f"b{n}", "--from", "alice")
        wait_for_texts(home, "bob", f"p{n}", f"b{n}")
    if read:
        assert len(texts(home, "bob", limit=6)) == 6
        wait_until(lambda: len(texts(home, "bob", peek=True)) == 4, "that is confirmed")
    home.kill()
    journal = home.state / "agents" / "bob.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    for k, line in enumerate(lines):
        if b'"text":"p2"' in line or b'"text":"b2"' in line:
            lines[k] = line.replace(b'2"', b'7"')
    journal.write_bytes(b"".join(lines))
    if gone:
        peer.store.delete(peer.key("to_bob"), peer.key("all"), peer.key("group"))
    home.start()
    left = {f"{kind}{n}" for kind in "pb" for n in ((4, 5) if read else (1, 2, 3, 4, 5))}
    if gone:
        left -= {"p2", "b2"}
    wait_until(lambda: receiving(home, "bob"), "it has read all there is")
    wait_for_texts(home, "bob", *left)
    with home.rpc() as rpc:
        found = rpc.call("inbox", name="bob", limit=100)
    assert found["lost"] == (1 if gone and not read else 0)  # of broadcasts it is not known how many there were
    assert sorted(message["text"] for message in found["messages"]) == sorted(left)


@pytest.mark.parametrize("moves", [False, True])
def test_losses_that_nobody_was_told_of_outlive_a_clean_stop(home: Home, other: Home, peer: Peer, moves: bool) -> None:
    """They are told once, by whichever daemon goes on with the name."""
    home.start()
    home.meshctl("register", "bob")
    for n in (1, 5):
        peer.add("to_bob", {"from": "alice", "msg": str(n), "id": f"m{n}", "sid": "ab", "n": str(n)})
    wait_until(lambda: texts(home, "bob", peek=True) == ["1", "5"], "they have come")
    assert home.stop() == 0
    told = []
    if moves:
        other.start()
        other.meshctl("register", "bob")
        told.append(_lost(other))
    home.start()
    if moves:
        home.meshctl("register", "bob", "--takeover")
    told += [_lost(home), _lost(home)]
    assert told == ([3, 0, 0] if moves else [3, 0])


def _lost(home: Home) -> int:
    with home.rpc() as rpc:
        return int(rpc.call("inbox", name="bob")["lost"])


@pytest.mark.parametrize("stream", ["to_bob", "group"])
def test_a_count_that_cannot_be_true_is_not_believed(stream: str, home: Home, peer: Peer) -> None:
    """Nor does it hide what is missing of the sender whose it should be."""
    home.start()
    home.meshctl("register", "bob")
    for n in (1, 10**12, 5, 10**15 - 1, 7):
        peer.add(stream, {"from": "alice", "to": "*", "msg": str(n), "id": f"m{n}", "sid": "ab", "n": str(n)})
    wait_until(lambda: len(texts(home, "bob", peek=True)) == 5, "all have come")
    with home.rpc() as rpc:
        assert rpc.call("inbox", name="bob")["lost"] == 4  # 2, 3, 4 and 6


def test_the_group_stream_may_vanish(home: Home, peer: Peer) -> None:
    """Broadcasts go on after a flush, while running and while down, and none comes twice."""
    home.start()
    home.meshctl("register", "bob")
    peer.broadcast("1")
    wait_until(lambda: texts(home, "bob", peek=True) == ["1"], "the first is received")
    peer.store.flushall()
    peer.broadcast("2")
    wait_until(lambda: texts(home, "bob", peek=True) == ["1", "2"], "the second is received")
    home.kill()
    peer.store.flushall()
    peer.broadcast("3")
    home.start()
    wait_until(lambda: texts(home, "bob", peek=True) == ["1", "2", "3"], "the third is received")
    peer.broadcast("4")
    wait_until(lambda: texts(home, "bob", peek=True) == ["1", "2", "3", "4"], "the fourth is received")
