"""Two daemons with homes of their own on one store: names, mail and broadcasts between machines."""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from pathlib import Path

from tests.helper import Home, Store, a_home, wait_until
from tests.mesh.peer import Peer, hosted, receiving, texts, wait_for_texts


def start(*homes: Home) -> None:
    for home in homes:
        home.start()


def test_send_ping_and_request_cross_hosts(home: Home, other: Home) -> None:
    """What alice's daemon sends reaches bob's, and bob's answers come back."""
    start(home, other)
    other.meshctl("register", "bob")
    home.meshctl("send", "bob", "hello", "--from", "alice")
    assert other.meshctl("listen", "bob", "--timeout", "15") == "[DIRECT from alice] hello\n"
    assert home.meshctl("ping", "bob").startswith("pong from bob in ")
    asking = home.begin("request", "bob", "which?", "--from", "alice", "--timeout", "20")
    question = other.json("listen", "bob", "--timeout", "15")["message"]
    other.meshctl("reply", question["id"], "main", "--from", "bob")
    assert asking.communicate(timeout=20)[0] == "main\n"


def test_a_ping_says_whether_a_session_is_attached(home: Home, other: Home) -> None:
    """The daemon answers either way; the session is told apart."""
    start(home, other)
    other.meshctl("register", "bob")
    assert home.json("ping", "bob")["session"] is False
    listening = other.begin("monitor", "bob")
    try:
        wait_until(lambda: home.json("ping", "bob")["session"], "the session is seen")
    finally:
        listening.terminate()
        listening.communicate()


def test_who_shows_both_hosts(home: Home, other: Home) -> None:
    """From either side: role, process, unread count and session of every name."""
    start(home, other)
    home.meshctl("register", "alice", "--role", "writes")
    other.meshctl("register", "bob")
    home.meshctl("send", "bob", "one", "--from", "alice")
    home.meshctl("send", "bob", "two", "--from", "alice")
    listening = home.begin("monitor", "alice")
    try:
        for seen_from in (home, other):

            def complete(seen_from: Home = seen_from) -> bool:
                found = {entry["agent"]: entry for entry in seen_from.json("who")["agents"]}
                return (
                    set(found) == {"alice", "bob"}
                    and (found["alice"]["role"], found["alice"]["session"]) == ("writes", True)
                    and (found["bob"]["unread"], found["bob"]["session"]) == (2, False)
                    and home.daemon is not None
                    and other.daemon is not None
                    and found["alice"]["pid"] == home.daemon.pid
                    and found["bob"]["pid"] == other.daemon.pid
                    and all(entry["host"] and entry["age"] < 60 and entry["wake"] for entry in found.values())
                )

            wait_until(complete, "who is complete")
    finally:
        listening.terminate()
        listening.communicate()


def test_a_0_1_program_shows_in_who(home: Home, peer: Peer) -> None:
    """A registry key that 0.1 wrote is listed, although it is in no index; it is gone with the key."""
    home.start()
    written = json.dumps({"agent": "old", "role": "tester", "pid": 7, "ts": time.time()})
    peer.store.set(peer.key("registry:old"), written, ex=180)
    # The store is shared with other tests: one call looks through a piece of it, the next goes on from there.
    (entry,) = wait_until(lambda: home.json("who")["agents"], "who has come upon the key")
    assert (entry["agent"], entry["role"], entry["pid"], entry["version"]) == ("old", "tester", 7, "0.1")
    peer.store.delete(peer.key("registry:old"))
    assert home.meshctl("who") == "(no agents registered)\n"


def test_the_second_daemon_is_told_who_holds_the_name(home: Home, other: Home, peer: Peer) -> None:
    """Exit 7 with host and process of the holder; nothing is moved, split or hosted."""
    start(home, other)
    home.meshctl("register", "bob")
    for command in (("register", "bob"), ("inbox", "bob"), ("listen", "bob", "--timeout", "5")):
        done = other.run(*command)
        assert done.returncode == 7
        assert home.daemon is not None
        assert f"pid {home.daemon.pid}" in done.stderr
        assert "--takeover" in done.stderr
    assert hosted(other, "bob") is None
    peer.send("bob", "still here")
    assert home.meshctl("listen", "bob", "--timeout", "15") == "[DIRECT from old] still here\n"


def test_takeover_goes_on_where_the_name_was_read(home: Home, other: Home, peer: Peer) -> None:
    """What was read stays read, what was unread comes, what is sent later comes once; the first lets go."""
    start(home, other)
    home.meshctl("register", "bob")
    for n in range(6):
        peer.send("bob", str(n))
    wait_until(lambda: len(texts(home, "bob", peek=True)) == 6, "all six are received")
    assert texts(home, "bob", limit=2) == ["0", "1"]
    assert other.meshctl("register", "bob", "--takeover") == "registered bob\n"
    wait_until(lambda: hosted(home, "bob") is None, "the first daemon has let go")
    peer.send("bob", "6")
    wait_until(lambda: len(texts(other, "bob", peek=True)) == 5, "all unread ones are at the second")
    assert texts(other, "bob") == ["2", "3", "4", "5", "6"]
    assert home.run("inbox", "bob").returncode == 7
    assert home.meshctl("register", "bob", "--takeover") == "registered bob\n"
    peer.send("bob", "7")
    wait_until(lambda: texts(home, "bob", peek=True), "it comes at the first again")
    assert texts(home, "bob") == ["7"]


def test_what_was_read_elsewhere_is_not_called_lost(home: Home, other: Home) -> None:
    """Counted mail and broadcasts, read at the second daemon by takeover, then at the first by giving the name up."""
    start(home, other)
    home.meshctl("register", "bob")
    number = 0

    def deliver(where: Home, *, exactly: bool = True) -> None:
        nonlocal number
        for _ in range(2):
            number += 1
            home.meshctl("send", "bob", f"p{number}", "--from", "alice")
            home.meshctl("broadcast", f"b{number}", "--from", "alice")
        sent = {f"{kind}{n}" for kind in "pb" for n in (number - 1, number)}
        wait_for_texts(where, "bob", *sent)
        found = texts(where, "bob")
        assert sorted(found) == sorted(sent) if exactly else set(found) >= sent

    deliver(home)
    for holder, before in ((other, home), (home, other)):
        taken = holder.json("register", "bob", "--takeover")["taken_over"]
        wait_until(lambda before=before: hosted(before, "bob") is None, "the holder has let go")  # type: ignore[misc]
        # Of a holder that was too busy to answer in time, what was read last may come again.
        deliver(holder, exactly=taken["answered"])
    for holder, before in ((other, home), (home, other)):
        before.meshctl("deregister", "bob")
        holder.meshctl("register", "bob")
        deliver(holder)
    for where in (home, other):
        assert not [line for line in where.notify_lines("bob") if "LOST" in line]


def read_out_of_order(home: Home, name: str, *, leave: set[str]) -> None:
    """Take everything one by one, and confirm all but `leave`."""
    with home.rpc() as rpc:
        while (taken := rpc.call("inbox", name=name, limit=1, ack="explicit"))["messages"]:
            if taken["messages"][0]["text"] not in leave:
                rpc.call("confirm", receipt=taken["receipt"])


def test_takeover_with_messages_read_out_of_order(home: Home, other: Home, peer: Peer) -> None:
    """Holes in what was read are unread elsewhere; what was read above a hole does not come again."""
    start(home, other)
    home.meshctl("register", "bob")
    for n in range(8):
        peer.send("bob", f"p{n}")
        peer.broadcast(f"b{n}")
    wait_until(lambda: len(texts(home, "bob", peek=True)) == 16, "all are received")
    unread = {"p1", "p4", "b2", "b5"}
    read_out_of_order(home, "bob", leave=unread)
    wait_until(lambda: set(texts(home, "bob", peek=True)) == unread, "the rest is read")
    other.meshctl("register", "bob", "--takeover")
    wait_until(lambda: set(texts(other, "bob", peek=True)) >= unread, "the holes are unread at the second")
    peer.send("bob", "last")
    peer.broadcast("last of all")
    wait_until(lambda: {"last", "last of all"} <= set(texts(other, "bob", peek=True)), "the later ones are there")
    found = texts(other, "bob")
    assert sorted(found) == sorted([*unread, "last", "last of all"])


def test_what_was_read_stays_read_on_a_third_daemon(
    home: Home, other: Home, peer: Peer, tmp_path: Path, server: Store, prefix: str
) -> None:
    """Read out of order on the first, moved to the second and unread there, moved on: still nothing comes again."""
    with a_home(tmp_path / "third", server.url, AGENT_MESH_PREFIX=prefix) as third:
        start(home, other, third)
        home.meshctl("register", "bob")
        for n in range(4):
            peer.send("bob", f"p{n}")
            peer.broadcast(f"b{n}")
        wait_until(lambda: len(texts(home, "bob", peek=True)) == 8, "all are received")
        read_out_of_order(home, "bob", leave={"p0", "b0"})
        for where in (other, third):
            where.meshctl("register", "bob", "--takeover")
            wait_for_texts(where, "bob", "p0", "b0")
            peer.send("bob", "last")
            wait_for_texts(where, "bob", "last")
        assert sorted(texts(third, "bob")) == ["b0", "last", "last", "p0"]


def test_how_far_broadcasts_were_read_outlives_a_crash(home: Home, other: Home, peer: Peer) -> None:
    """A broadcast that was read, and nothing else: after kill -9 it does not come again on another daemon."""
    start(home, other)
    home.meshctl("register", "bob")
    peer.broadcast("one")
    wait_until(lambda: texts(home, "bob") == ["one"], "it is read")
    last = peer.store.xrevrange(peer.key("group"), count=1)[0][0].decode()
    wait_until(lambda: json.loads(peer.store.get(peer.key("read:bob")) or "{}").get("g") == last, "the store knows")
    home.kill()
    other.meshctl("register", "bob", "--takeover")
    peer.broadcast("two")
    wait_until(lambda: texts(other, "bob", peek=True)[-1:] == ["two"], "the next one comes")
    assert texts(other, "bob") == ["two"]


def test_a_name_moves_by_clean_stops(home: Home, other: Home, peer: Peer) -> None:
    """Stopped here and registered there, and back: each message is read once, in order, broadcasts too."""
    start(home, other)
    home.meshctl("register", "bob")
    peer.send("bob", "1")
    peer.broadcast("b1")
    peer.send("bob", "2")
    wait_until(lambda: len(texts(home, "bob", peek=True)) == 3, "all are received")
    assert texts(home, "bob", limit=1) in (["1"], ["b1"])
    left = wait_until(lambda: len(t := texts(home, "bob", peek=True)) == 2 and t, "the first is read")
    assert home.stop() == 0
    peer.send("bob", "3")
    other.meshctl("register", "bob")
    wait_until(lambda: len(texts(other, "bob", peek=True)) == 3, "what was unread is at the second")
    assert sorted(texts(other, "bob")) == sorted([*left, "3"])
    peer.broadcast("b2")
    wait_until(lambda: texts(other, "bob", peek=True) == ["b2"], "the broadcast is at the second")
    assert other.stop() == 0
    peer.send("bob", "4")
    home.start()
    wait_until(lambda: receiving(home, "bob"), "the first daemon has it back")
    wait_until(lambda: len(texts(home, "bob", peek=True)) == 2, "what is unread is at the first")
    assert sorted(texts(home, "bob")) == ["4", "b2"]


def test_a_name_that_was_moved_while_its_daemon_was_down_is_not_taken_back(home: Home, other: Home) -> None:
    """A daemon that starts again and finds its name held elsewhere says so and leaves it there."""
    start(home, other)
    home.meshctl("register", "bob")
    home.kill()
    assert other.run("register", "bob").returncode == 7  # a killed daemon's lease still stands
    other.meshctl("register", "bob", "--takeover")
    home.start()
    wait_until(lambda: hosted(home, "bob") is None, "the first daemon lets go")
    assert receiving(other, "bob") or hosted(other, "bob") is not None
    home.meshctl("send", "bob", "hello", "--from", "alice")
    assert other.meshctl("listen", "bob", "--timeout", "15") == "[DIRECT from alice] hello\n"


def sent_more(sent: list[str], than: int) -> bool:
    return len(sent) > than


def test_no_message_is_missed_while_a_name_moves_under_load(home: Home, other: Home, peer: Peer) -> None:
    """Sent without a pause while the name moves there and back twice: each arrives once, in order.

    A holder that does not answer in time may have been too busy, and what was read there last may come again.
    """
    start(home, other)
    home.meshctl("register", "bob")
    stopping = threading.Event()
    sent: list[str] = []

    def sender() -> None:
        while not stopping.is_set():
            peer.send("bob", str(len(sent)))
            sent.append(str(len(sent)))
            stopping.wait(0.002)

    thread = threading.Thread(target=sender)
    thread.start()
    received: list[str] = []
    again: set[str] = set()
    try:
        holder, next_one = home, other
        for _ in range(4):
            enough = len(received) + 50
            wait_until(partial(sent_more, sent, enough), "some more are sent")
            if not next_one.json("register", "bob", "--takeover")["taken_over"]["answered"]:
                again |= set(received)
            holder, next_one = next_one, holder
            received += [text for text in texts(holder, "bob", limit=20) if text not in again]
    finally:
        stopping.set()
        thread.join()
    wait_until(lambda: texts(holder, "bob", peek=True)[-1:] == sent[-1:], "the last one is received")
    received += [text for text in texts(holder, "bob") if text not in again]
    assert received == sent


def test_a_broadcast_reaches_every_agent_once(home: Home, other: Home, peer: Peer) -> None:
    """On every daemon, not its sender; a new name has those from now on; restarts repeat nothing."""
    start(home, other)
    for where, name in ((home, "alice"), (home, "bob"), (other, "carol")):
        where.meshctl("register", name)
    home.meshctl("broadcast", "one", "--from", "alice")
    peer.broadcast("two")
    wait_until(lambda: len(texts(home, "bob", peek=True)) == 2, "bob has both")
    wait_until(lambda: len(texts(other, "carol", peek=True)) == 2, "carol has both")
    wait_until(lambda: len(texts(home, "alice", peek=True)) == 1, "alice has the other's")
    other.meshctl("register", "dave")
    home.kill()
    assert other.stop() == 0
    peer.broadcast("three")
    start(home, other)
    for where, name in ((home, "alice"), (home, "bob"), (other, "carol"), (other, "dave")):
        wait_for_texts(where, name, "three")
    assert texts(home, "alice") == ["two", "three"]
    assert texts(home, "bob") == ["one", "two", "three"]
    assert texts(other, "carol") == ["one", "two", "three"]
    assert texts(other, "dave") == ["three"]


def test_a_name_that_moved_is_let_go_even_if_that_cannot_be_written_down(home: Home, other: Home) -> None:
    """The list of hosted names cannot be replaced: the old holder receives nothing more all the same."""
    start(home, other)
    home.meshctl("register", "bob")
    listed = home.state / "hosted.json"
    listed.unlink()
    (listed / "in the way").mkdir(parents=True)
    other.meshctl("register", "bob", "--takeover")
    wait_until(lambda: hosted(home, "bob") is None, "the old holder has let go")
    other.meshctl("send", "bob", "for the new holder", "--from", "alice", "-p")
    assert other.meshctl("inbox", "bob") == "[DIRECT from alice] for the new holder\n"
    assert home.notify_lines("bob") == []
    assert "Traceback" not in home.log()
