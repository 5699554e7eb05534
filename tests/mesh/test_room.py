"""A mailbox has a bound: what is beyond it is refused and said, so that what was sent is never pushed out unread."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from meshd.core.wire import MAXLEN
from tests.faults.slow_disk import SlowDisk, needs_a_compiler
from tests.helper import Home, Rpc, Store, a_home, wait_until
from tests.mesh.peer import Peer, hosted, receiving, texts
from tests.mesh.test_order import _pipeline

BURST = 6000


def fill(peer: Peer, name: str, count: int = MAXLEN) -> list[str]:
    """So many messages of a 0.1 program, which pushes nothing out; and their texts."""
    with peer.store.pipeline(transaction=False) as pipe:
        for k in range(count):
            fields = {"from": "old", "msg": f"{k}", "ts": f"{time.time():.6f}", "id": f"f{k}"}
            pipe.xadd(peer.key(f"to_{name}"), fields)
        pipe.execute()
    return [f"{k}" for k in range(count)]


def burst(rpc: Rpc, count: int, start: int = 0) -> tuple[list[str], Counter[str]]:
    """Send so many to bob without waiting: what was sent, in order, and how often the rest ended as what."""
    sends: list[dict[str, Any]] = [
        {"target": "bob", "message": str(k), "from_": "alice", "private": True} for k in range(start, start + count)
    ]
    answers = _pipeline(rpc, sends)
    ended: Counter[str] = Counter(answer["error"]["data"]["kind"] for answer in answers if "error" in answer)
    return [str(send["message"]) for send, answer in zip(sends, answers, strict=True) if "result" in answer], ended


def all_texts(home: Home, name: str) -> list[str]:
    found: list[str] = []
    while more := texts(home, name):
        found += more
    return found


def wait_for_unread(home: Home, name: str, count: int) -> None:
    wait_until(lambda: unread(home, name) == count, f"{name} has received {count}", deadline=60)


def unread(home: Home, name: str) -> int:
    agent = hosted(home, name)
    return int(agent["unread"]) if agent is not None else 0


@needs_a_compiler
@pytest.mark.parametrize("ms", [30, 500])
def test_a_burst_that_is_faster_than_the_disk(ms: int, tmp_path: Path, server: Store, prefix: str) -> None:
    """Whatever was sent is in the inbox, in order, and nothing is lost; the rest was busy, and is told so."""
    disk = SlowDisk(tmp_path / "disk", str(tmp_path / "home" / "*" / "bob.journal"), ms=ms)
    variables = {"AGENT_MESH_PREFIX": prefix, "AGENT_MESH_GATE_LIMIT": "1000000", **disk.env}
    with a_home(tmp_path / "home", server.url, **variables) as home:
        home.start()
        home.meshctl("register", "bob")
        with home.rpc() as rpc:
            sent, ended = burst(rpc, BURST)
        assert len(sent) >= MAXLEN
        assert ended == Counter({"busy": BURST - len(sent)} if len(sent) < BURST else {})
        wait_for_unread(home, "bob", len(sent))
        agent = hosted(home, "bob")
        assert agent is not None
        assert agent["lost"] == 0
        assert all_texts(home, "bob") == sent
        with home.rpc() as rpc:
            assert burst(rpc, 100, BURST) == ([str(k) for k in range(BURST, BURST + 100)], Counter())


@needs_a_compiler
def test_a_disk_that_hangs_takes_as_much_as_the_bound(tmp_path: Path, server: Store, prefix: str) -> None:
    """Not one more than 2,000 is sent, because none is received; once it goes on there is room again."""
    disk = SlowDisk(tmp_path / "disk", str(tmp_path / "home" / "*" / "bob.journal"), hangs=True, broken=False)
    variables = {"AGENT_MESH_PREFIX": prefix, "AGENT_MESH_GATE_LIMIT": "1000000", **disk.env}
    with a_home(tmp_path / "home", server.url, **variables) as home:
        home.start()
        home.meshctl("register", "bob")
        try:
            disk.break_()
            with home.rpc() as rpc:
                sent, ended = burst(rpc, BURST)
                assert (len(sent), ended) == (MAXLEN, Counter(busy=BURST - MAXLEN))
                refused = home.run("send", "bob", "one more", "--from", "alice")
                assert refused.returncode == 1
                assert "2000 messages wait there since" in refused.stderr
                assert "its daemon has not received them yet" in refused.stderr
                waiting = home.begin("send", "bob", "patient", "--from", "alice", "--wait-room", "60")
                disk.mend()
                assert waiting.wait(60) == 0, waiting.communicate()
                waiting.communicate()
            wait_for_unread(home, "bob", MAXLEN + 1)
            assert all_texts(home, "bob") == [*sent, "patient"]
        finally:
            disk.mend()


def test_a_quick_receiver_that_reads_nothing_takes_any_number(home: Home) -> None:
    """What it has on its disk is pushed out of the store; on its own machine all of it is unread, and none is lost."""
    home.env["AGENT_MESH_GATE_LIMIT"] = "1000000"
    home.start()
    home.meshctl("register", "bob")
    sent: list[str] = []
    with home.rpc() as rpc:
        while len(sent) < BURST:
            more, ended = burst(rpc, 500, len(sent))
            assert not ended
            sent += more
            wait_for_unread(home, "bob", len(sent))
        home.kill()
    home.start()
    wait_until(lambda: receiving(home, "bob"), "bob is back")
    agent = hosted(home, "bob")
    assert agent is not None
    assert (agent["unread"], agent["lost"]) == (BURST, 0)
    assert all_texts(home, "bob") == sent


def test_an_absent_name_keeps_what_is_unread_and_its_senders_hear_of_it(home: Home, peer: Peer) -> None:
    """How many wait, since when, and what there is to do; after they were read there is room, also unhosted."""
    home.start()
    old = fill(peer, "dora")
    at = time.strftime(
        "%H:%M", time.localtime(int(peer.store.xrange(peer.key("to_dora"), count=1)[0][0].split(b"-")[0]) / 1000)
    )
    refused = home.run("send", "dora", "hello", "--from", "alice")
    said = f"not sent: dora's mailbox is full: 2000 messages wait there since {at}, nobody hosts the name"
    assert (refused.returncode, refused.stdout) == (1, "")
    assert said in refused.stderr
    assert "meshctl inbox dora reads them; send --wait-room S waits for room" in refused.stderr
    error = json.loads(home.run("send", "dora", "hello", "--from", "alice", "--json").stdout)["error"]
    assert (error["message"], error["data"]["kind"], error["data"]["retryable"]) == (said, "busy", True)
    assert error["data"]["waiting"] == MAXLEN
    assert abs(error["data"]["since"] - time.time()) < 600
    assert len(error["data"]["id"]) == 32
    assert [entry["msg"] for entry in peer.entries("to_dora")] == old
    assert home.run("send", "dora", "hello", "--from", "alice", "-e").returncode == 1
    assert home.json("pending", "alice")["entries"] == []
    home.meshctl("register", "dora")
    wait_for_unread(home, "dora", MAXLEN)
    assert all_texts(home, "dora") == old
    home.meshctl("send", "dora", "hosted", "--from", "alice")
    wait_for_unread(home, "dora", 1)
    assert texts(home, "dora") == ["hosted"]
    home.meshctl("deregister", "dora")
    assert peer.entries("to_dora") == []
    home.meshctl("send", "dora", "unhosted", "--from", "alice")
    home.meshctl("register", "dora")
    wait_for_unread(home, "dora", 1)
    assert texts(home, "dora") == ["unhosted"]


def test_patience(home: Home, peer: Peer) -> None:
    """Whoever waits for room gets it in the order of the sends; whoever does not hears at once that there is none."""
    home.start()
    with home.rpc() as rpc:
        rpc.call("send", target="dora", message="before", from_="alice", id="before")
        old = ["before", *fill(peer, "dora", MAXLEN - 1)]
        first = rpc.send("send", target="dora", message="first", from_="alice", wait_room=60)
        second = rpc.send("send", target="dora", message="second", from_="alice", wait_room=60)
        expecting = rpc.send("send", target="dora", message="third", from_="alice", wait_room=60, expect_reply=True)
        short = rpc.send("send", target="dora", message="short", from_="alice", wait_room=0.2)
        at_once = rpc.send("send", target="dora", message="at once", from_="alice")
        ended = [rpc.read() for _ in range(2)]
        assert [answer["id"] for answer in ended] == [at_once, short]
        assert {answer["error"]["data"]["kind"] for answer in ended} == {"busy"}
        again = rpc.answer("send", target="dora", message="before", from_="alice", id="before")
        assert again["result"]["again"]  # and not that it was not sent
        other = rpc.answer("send", target="erin", message="meanwhile", from_="alice")
        assert "result" in other
        home.meshctl("register", "dora")
        assert [rpc.read().get("id") for _ in range(3)] == [first, second, expecting]
    wait_for_unread(home, "dora", MAXLEN + 3)
    assert all_texts(home, "dora") == [*old, "first", "second", "third"]


def test_who_gives_up_to_wait_has_sent_nothing(home: Home, peer: Peer) -> None:
    """Neither is it sent when there is room later, nor is a reply to it owed."""
    home.start()
    old = fill(peer, "dora")
    with home.begin("send", "dora", "given up", "--from", "alice", "-e", "--wait-room", "60") as waiting:
        wait_until(lambda: home.json("pending", "alice")["entries"], "it waits")
        waiting.terminate()
    wait_until(lambda: home.json("pending", "alice")["entries"] == [], "no reply is owed")
    home.meshctl("register", "dora")
    wait_for_unread(home, "dora", MAXLEN)
    home.meshctl("send", "dora", "after", "--from", "alice")
    wait_for_unread(home, "dora", MAXLEN + 1)
    assert all_texts(home, "dora") == [*old, "after"]


def test_what_is_no_time_to_wait_is_refused(home: Home) -> None:
    home.start()
    for bad in ("-1", "nan", "inf", "1e9"):
        refused = home.run("send", "bob", "hello", f"--wait-room={bad}")
        assert refused.returncode == 2
        assert "wait_room must be from 0 to" in refused.stderr


def test_a_request_waits_for_room_and_no_longer_than_for_its_answer(home: Home, peer: Peer) -> None:
    home.start()
    fill(peer, "dora")
    refused = home.run("request", "dora", "which?", "--from", "alice", "--timeout", "0.3")
    assert refused.returncode == 1
    assert "mailbox is full" in refused.stderr
    asking = home.begin("request", "dora", "which?", "--from", "alice", "--timeout", "60")
    home.meshctl("register", "dora")
    wait_for_unread(home, "dora", MAXLEN + 1)
    asked = home.json("inbox", "dora", "--limit", "10000")["messages"][-1]
    home.meshctl("reply", asked["id"], "main", "--from", "dora")
    assert asking.communicate(timeout=30)[0] == "main\n"


def test_a_ping_pushes_nothing_out(home: Home, peer: Peer) -> None:
    home.start()
    old = fill(peer, "dora")
    refused = home.run("ping", "dora", "--timeout", "1")
    assert refused.returncode == 1
    assert "not pinged: dora's mailbox is full: 2000 messages wait there" in refused.stderr
    assert [entry["msg"] for entry in peer.entries("to_dora")] == old


def test_a_takeover_pushes_nothing_out(home: Home, other: Home, peer: Peer) -> None:
    """However full the mailbox is, and whoever had it: all that is unread goes along, and nothing is called lost."""
    home.start()
    other.start()
    home.meshctl("register", "dora")
    old = fill(peer, "dora")
    wait_for_unread(home, "dora", MAXLEN)
    with home.rpc() as rpc:
        for k in range(300):  # pushes out as many, which one disk alone has then
            rpc.call("send", target="dora", message=f"more {k}", from_=f"alice{k % 9}")
    wait_for_unread(home, "dora", MAXLEN + 300)
    other.meshctl("register", "dora", "--takeover")
    wait_for_unread(other, "dora", MAXLEN + 300)
    agent = hosted(other, "dora")
    assert agent is not None
    assert agent["lost"] == 0
    found = all_texts(other, "dora")
    assert found == [*old, *(f"more {k}" for k in range(300))]


def test_what_was_read_and_removed_is_not_lost_for_whoever_comes_next(home: Home, other: Home, peer: Peer) -> None:
    """Neither at the next holder, nor where the state was put back to before that, nor after the stream has ended."""
    home.start()
    other.start()
    home.meshctl("register", "dora")
    with other.rpc() as rpc:

        def send(*words: str) -> None:
            for word in words:
                rpc.call("send", target="dora", message=word, from_="alice", private=True)

        def are_read(where: Home, *words: str) -> None:
            wait_for_unread(where, "dora", len(words))
            assert all_texts(where, "dora") == list(words)

        send("1", "2", "3")
        are_read(home, "1", "2", "3")
        wait_until(lambda: peer.entries("to_dora") == [], "what was read is removed")
        home.stop()
        shutil.copytree(home.state, home.path / "kept")
        home.start()
        send("4", "5")
        are_read(home, "4", "5")
        wait_until(lambda: peer.entries("to_dora") == [], "these, too")
        home.kill()
        shutil.rmtree(home.state)
        shutil.move(home.path / "kept", home.state)
        home.start()
        send("6")
        are_read(home, "6")
        assert hosted(home, "dora")["lost"] == 0  # type: ignore[index]
        send("7")
        wait_for_unread(home, "dora", 1)
        other.meshctl("register", "dora", "--takeover")
        are_read(other, "7")
        assert hosted(other, "dora")["lost"] == 0  # type: ignore[index]
        other.meshctl("deregister", "dora")
        peer.store.pexpire(peer.key("to_dora"), 1)  # as it does when nobody came for thirty days
        wait_until(lambda: not peer.store.exists(peer.key("to_dora")), "the stream has ended")
        send("8")
        other.meshctl("register", "dora")
        are_read(other, "8")
        assert hosted(other, "dora")["lost"] == 0  # type: ignore[index]
