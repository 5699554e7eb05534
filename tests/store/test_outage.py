"""The store goes away and comes back: what was said stays true, and the mesh goes on by itself."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helper import Home, Store, a_home, wait_until
from tests.mesh.peer import Peer, hosted, receiving, texts
from tests.store.servers import Fake, a_store, is_up


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Store]:
    """A store that this test may kill; its log is on. Redis: Valkey is killed in the embedded store's tests."""
    with a_store("redis", tmp_path / "store", "--appendonly", "yes") as store:
        yield store


@pytest.fixture
def here(tmp_path: Path, own: Store) -> Iterator[Home]:
    with a_home(tmp_path / "here", own.url) as made:
        yield made


def test_a_store_that_is_down_at_the_start(here: Home, own: Store) -> None:
    """The daemon is up and says so; commands fail within their time, with exit 4 and the reason; nothing that was
    refused arrives later; the store's coming is noticed without anybody's help."""
    own.kill()
    here.start()
    status = here.run("status")
    assert status.returncode == 4
    assert "store:  down" in status.stdout
    started = time.monotonic()
    failing = [
        here.begin(*arguments)
        for arguments in (
            ("send", "bob", "too early", "--from", "alice"),
            ("broadcast", "too early", "--from", "alice"),
            ("register", "bob"),
            ("who",),
            ("ping", "bob"),
        )
    ]
    for process in failing:
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (4, "")
        assert own.socket in err or "out of reach" in err
        assert "next: " in err
    assert time.monotonic() - started < 8
    assert here.run("send", "no such name!", "x").returncode == 2
    own.start()
    wait_until(lambda: is_up(here), "the store is found")
    assert here.run("status").returncode == 0
    here.meshctl("register", "bob")
    here.meshctl("send", "bob", "in time", "--from", "alice")
    assert here.meshctl("listen", "bob", "--timeout", "15") == "[DIRECT from alice] in time\n"
    peer = Peer(own, "mesh")
    assert peer.store.xinfo_stream(peer.key("to_bob"))["entries-added"] == 1
    assert [entry["msg"] for entry in peer.entries("group")] == ["in time"]
    peer.close()


def test_a_store_killed_while_readers_wait(here: Home, own: Store) -> None:
    """A `listen` that waits outlives the store; what was sent before is there, what is sent after arrives."""
    here.start()
    for name in ("bob", "carol"):
        here.meshctl("register", name)
    here.meshctl("send", "carol", "kept", "--from", "alice")
    waiting = here.begin("listen", "bob", "--timeout", "40")
    wait_until(lambda: (hosted(here, "bob") or {})["sessions"] == 1, "the listener is there")
    own.kill()
    wait_until(lambda: not is_up(here), "the daemon has noticed")
    assert here.run("status").returncode == 4
    own.start()
    wait_until(lambda: is_up(here), "the store is found again")
    here.meshctl("send", "bob", "after", "--from", "alice")
    assert waiting.communicate(timeout=30)[0] == "[DIRECT from alice] after\n"
    assert texts(here, "carol") == ["kept"]
    here.meshctl("broadcast", "all", "--from", "alice")
    wait_until(lambda: texts(here, "carol", peek=True) == ["all"], "broadcasts go on")


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_an_inbox_says_that_there_may_be_more_than_is_known(here: Home, own: Store, how: str) -> None:
    """What was received is given; that nothing else waits is not claimed while the store does not say so."""
    here.start()
    here.meshctl("register", "bob")
    assert here.run("inbox", "bob").stderr == "(no unread messages)\n"
    getattr(own, how)()
    done = here.run("inbox", "bob")
    assert (done.returncode, done.stdout) == (0, "")
    nothing, warning = done.stderr.split("\n", 1)
    assert nothing == "(no unread messages)"
    assert warning.startswith("warning: ")
    assert warning.endswith("\n  next: meshctl doctor\n")
    own.resume() if how == "pause" else own.start()
    wait_until(lambda: here.run("inbox", "bob").stderr == "(no unread messages)\n", "it is known again")


def test_a_send_rides_out_a_short_outage(here: Home, own: Store) -> None:
    """Asked while the store is down and answered when it is back, inside the deadline: sent, once."""
    here.start()
    here.meshctl("register", "bob")
    own.kill()
    wait_until(lambda: not is_up(here), "the daemon has noticed")
    sending = here.begin("send", "bob", "patience", "--from", "alice")
    own.start()
    out, err = sending.communicate(timeout=20)
    assert (sending.returncode, out[:5]) == (0, "sent "), err
    wait_until(lambda: texts(here, "bob") == ["patience"], "it is received")
    assert texts(here, "bob") == []


def test_a_stopped_store_leaves_the_outcome_unknown(here: Home, own: Store) -> None:
    """SIGSTOP: exit 4 inside the deadline, with the id; what is called not sent does not arrive by itself, and
    sending again under the same id makes no second message."""
    here.start()
    here.meshctl("register", "bob")
    own.pause()
    started = time.monotonic()
    sending = [here.begin("send", "bob", f"maybe {k}", "--id", f"mine-{k}", "--json") for k in range(3)]
    kinds = {}
    for k, process in enumerate(sending):
        out, err = process.communicate(timeout=20)
        assert process.returncode == 4
        error = json.loads(out)["error"]["data"]
        assert error["id"] == f"mine-{k}"
        kinds[f"maybe {k}"] = error["kind"]
        if error["kind"] == "outcome_unknown":
            assert "may or may not" in err
            assert f"--id mine-{k}" in err
        else:
            assert error["kind"] == "store_down"
            assert "not sent" in err
    assert time.monotonic() - started < 9
    assert "outcome_unknown" in kinds.values()
    assert here.run("status").returncode == 4
    own.resume()
    wait_until(lambda: is_up(here), "the store answers again")
    here.meshctl("send", "bob", "first", "--from", "alice")
    wait_until(lambda: "first" in texts(here, "bob", peek=True), "it goes on")
    unknown = {text for text, kind in kinds.items() if kind == "outcome_unknown"}
    assert set(texts(here, "bob", peek=True)) - {"first"} <= unknown
    for _ in range(2):
        for k in range(3):
            here.meshctl("send", "bob", f"maybe {k}", "--id", f"mine-{k}")
    here.meshctl("send", "bob", "last", "--from", "alice")
    wait_until(lambda: texts(here, "bob", peek=True)[-1:] == ["last"], "the last is received")
    assert sorted(texts(here, "bob")) == ["first", "last", "maybe 0", "maybe 1", "maybe 2"]


def test_a_late_answer_is_nobody_elses(here: Home, own: Store) -> None:
    """After a stall each caller has the answer to its own question: none is answered with an earlier one's."""
    here.start()
    here.meshctl("register", "bob")
    own.pause()
    with here.rpc() as rpc:
        for k in range(3):
            rpc.send("send", target="bob", message=str(k), from_="alice")
            rpc.send("who")
            rpc.send("ping", target="nobody", timeout=1)
        for _ in range(9):
            assert rpc.read()["error"]["data"]["exit_code"] in (1, 4)
        own.resume()
        wait_until(lambda: is_up(here), "the store answers again")
        for k in range(20):
            assert [entry["agent"] for entry in rpc.call("who")["agents"]] == ["bob"]
            assert rpc.call("send", target="bob", message="x", from_="alice", id=f"i{k}")["id"] == f"i{k}"
            assert rpc.call("ping", target="bob")["target"] == "bob"


def test_a_store_that_forgets_its_scripts(here: Home, own: Store) -> None:
    """SCRIPT FLUSH between and during sends: each is sent once all the same."""
    here.start()
    here.meshctl("register", "bob")
    with here.rpc() as rpc, own.client() as client:
        expected = []
        for burst in range(5):
            asked: set[object] = set()
            for n in range(50):
                expected.append(f"{burst}-{n}")
                asked.add(rpc.send("send", target="bob", message=expected[-1], from_="alice"))
                if n in (0, 25):
                    client.script_flush("SYNC")
            while asked:
                answer = rpc.read()
                assert "result" in answer, answer
                asked.discard(answer["id"])
    wait_until(lambda: len(texts(here, "bob", peek=True)) == 250, "all are received")
    assert texts(here, "bob") == expected


def test_a_wrong_type_harms_one_agent(here: Home, own: Store) -> None:
    """A string where bob's stream should be: bob is in trouble and `status` says why; carol is not, and bob goes
    on when the key is gone."""
    here.start()
    here.meshctl("register", "carol")
    here.meshctl("register", "bob")
    here.kill()
    with own.client() as client:
        client.set("mesh:to_bob", "oops")
        here.start()
        wait_until(lambda: "WRONGTYPE" in str((hosted(here, "bob") or {})["trouble"]), "status says it")
        failed = here.run("send", "bob", "x", "--from", "alice")
        assert failed.returncode == 4
        assert "WRONGTYPE" in failed.stderr
        assert here.run("status").returncode == 0
        here.meshctl("send", "carol", "fine", "--from", "alice")
        wait_until(lambda: texts(here, "carol") == ["fine"], "carol receives")
        assert (hosted(here, "carol") or {})["trouble"] is None
        client.delete("mesh:to_bob")
        here.meshctl("send", "bob", "back", "--from", "alice")
        wait_until(lambda: texts(here, "bob", peek=True) == ["back"], "bob receives again")
        wait_until(lambda: receiving(here, "bob"), "and is not in trouble any more")


def test_an_outage_is_said_once_however_many_agents_there_are(here: Home, own: Store) -> None:
    """`status` names the reason in the store's lines; the agents wait for it, none with a reason of its own."""
    here.start()
    for name in ("bob", "carol", "dave"):
        here.meshctl("register", name)
    own.kill()
    wait_until(lambda: not is_up(here), "the daemon has noticed")
    status = here.run("status")
    assert status.returncode == 4
    assert status.stdout.count("waiting for the store") == 3
    assert not [line for line in status.stdout.splitlines() if line.startswith(("bob: ", "carol: ", "dave: "))]
    own.start()
    wait_until(lambda: all(receiving(here, name) for name in ("bob", "carol", "dave")), "all receive again")


def test_repeating_a_send_in_an_outage_does_not_forget_the_reply_that_is_owed(here: Home, own: Store) -> None:
    """The repetition was not sent, the first one was: its entry stays."""
    here.start()
    here.meshctl("register", "alice")
    here.meshctl("send", "bob", "answer me", "--from", "alice", "-e", "--id", "asked")
    own.kill()
    again = here.run("send", "bob", "answer me", "--from", "alice", "-e", "--id", "asked")
    assert again.returncode == 4
    assert [entry["id"] for entry in here.json("pending", "alice")["entries"]] == ["asked"]
    refused = here.run("send", "bob", "and me", "--from", "alice", "-e", "--id", "never")
    assert refused.returncode == 4
    assert [entry["id"] for entry in here.json("pending", "alice")["entries"]] == ["asked"]


def test_a_connection_that_is_reset_while_nothing_happens(tmp_path: Path, own: Store) -> None:
    """As by a firewall that forgot it. The next send has another connection, and the daemon lives."""
    upstream: dict[threading.Thread, socket.socket] = {}

    def pass_on(data: bytes) -> bytes:
        thread = threading.current_thread()
        if thread not in upstream:
            upstream[thread] = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
            upstream[thread].connect(own.socket)
        upstream[thread].sendall(data)
        return upstream[thread].recv(1 << 16)

    with contextlib.ExitStack() as open_sockets:
        between = Fake(pass_on)
        open_sockets.callback(between.close)
        open_sockets.callback(own.kill)  # ends whoever waits for it
        with a_home(tmp_path / "here", between.url) as here:
            daemon = here.start()
            wait_until(lambda: is_up(here), "the store is found")
            for k in range(3):
                between.reset()
                here.meshctl("send", "bob", f"{k}", "--from", "alice", AGENT_MESH_NO_AUTOSTART="1")
            assert daemon.poll() is None
            assert texts(here, "bob") == ["0", "1", "2"]
