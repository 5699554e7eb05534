"""ping, request, reply and ack, from one terminal to another."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import running
from tests.helper import Home, Store, a_home, program, wait_until


def question(home: Home, name: str) -> dict[str, str]:
    """The one unread message of the name, once it is there. Marks it read."""
    messages = wait_until(lambda: home.json("inbox", name)["messages"], "the question is there")
    assert len(messages) == 1
    found: dict[str, str] = messages[0]
    return found


def test_a_ping_prints_the_time_it_took(mesh: Home, name: str) -> None:
    mesh.meshctl("register", name)
    assert re.fullmatch(rf"pong from {name} in \d+\.\dms\n", mesh.meshctl("ping", name))
    answer = mesh.json("ping", name)
    assert answer["target"] == name
    assert answer["session"] is False
    assert 0 < answer["latency_ms"] < 5000


def test_a_ping_tells_whether_a_session_is_attached(mesh: Home, name: str) -> None:
    with running(mesh, "listen", name):
        wait_until(lambda: mesh.json("ping", name)["session"], "the ping tells of the session")


def test_a_ping_is_no_mail(mesh: Home, name: str) -> None:
    mesh.meshctl("register", name)
    mesh.meshctl("ping", name)
    assert mesh.run("inbox", name).stderr == "(no unread messages)\n"


def test_a_ping_to_nobody_times_out_with_exit_code_1(mesh: Home, name: str) -> None:
    done = mesh.run("ping", name, "--timeout", "0.3")
    assert done.returncode == 1
    assert done.stdout == f"timeout waiting for pong from {name}\n"
    assert "next: meshctl who" in done.stderr
    as_json = mesh.run("ping", name, "--timeout", "0.3", "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["error"]["data"]["kind"] == "timeout"


@pytest.mark.parametrize("where", ["reply_to", "id"])
def test_a_request_prints_the_text_of_its_reply_alone(home: Home, where: str) -> None:
    """Both forms of WHERE: the reply key, and the id of the message."""
    home.start()
    home.meshctl("register", "bob")
    with running(home, "request", "bob", "which branch?", "--from", "alice", "--timeout", "20") as asking:
        asked = question(home, "bob")
        assert (asked["from"], asked["text"]) == ("alice", "which branch?")
        assert asked["reply_to"] == f"{home.env['AGENT_MESH_PREFIX']}:reply:{asked['id']}"
        assert home.meshctl("reply", asked[where], "main\nplease", "--from", "bob") == f"replied {asked['id']}\n"
        assert asking.end() == (0, "main\nplease\n", "")


def test_a_request_as_json_is_one_document(mesh: Home, name: str) -> None:
    with running(mesh, "request", name, "?", "--from", "alice", "--timeout", "20", "--json") as asking:
        asked = question(mesh, name)
        mesh.meshctl("reply", asked["id"], "-", "--from", name, stdin="yes")
        code, out, _ = asking.end()
    assert code == 0
    assert json.loads(out) == {"reply": "yes", "from": name, "id": asked["id"]}


def test_a_request_without_a_reply_says_so_on_standard_error(mesh: Home, name: str) -> None:
    done = mesh.run("request", name, "?", "--from", "alice", "--timeout", "0.3")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "timeout: no reply received\n"


def test_a_request_survives_kill_9_of_the_daemon(home: Home) -> None:
    """The client asks the next daemon again under the same id: one question in the inbox, one answer."""
    home.start()
    home.meshctl("register", "bob")
    with running(home, "request", "bob", "?", "--from", "alice", "--timeout", "30") as asking:
        asked = wait_until(lambda: home.json("inbox", "bob", "--peek")["messages"], "the question is there")[0]
        home.kill()
        home.start()
        home.meshctl("reply", asked["id"], "still here", "--from", "bob")
        assert asking.end()[:2] == (0, "still here\n")
    assert [m["id"] for m in home.json("inbox", "bob")["messages"]] == [asked["id"]]


def test_a_reply_to_a_plain_message_goes_to_its_sender_with_a_reference(mesh: Home, name: str, peer: str) -> None:
    mesh.meshctl("register", peer)
    sent = mesh.meshctl("send", name, "hello", "--from", peer).split()[1]
    mesh.meshctl("inbox", name)
    mesh.meshctl("reply", sent, "hello yourself")  # who received it is known
    (answer,) = mesh.json("inbox", peer)["messages"]
    assert (answer["from"], answer["text"], answer["re"]) == (name, "hello yourself", sent)


@pytest.mark.parametrize(
    "where", ["0" * 32, "mesh:reply:zz", "mesh:reply:", "mesh:to_bob", "other:reply:" + "0" * 32, "", "mesh:group"]
)
def test_a_reply_goes_nowhere_but_to_a_reply_key_or_a_message(mesh: Home, where: str) -> None:
    done = mesh.run("reply", where, "hello")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("no message of that id was received here\n  next: WHERE is mesh:reply:<nonce>")


def test_an_ack_is_a_private_message_and_settles_what_the_peer_owed(mesh: Home, name: str, peer: str) -> None:
    for agent in (name, peer):
        mesh.meshctl("register", agent)
    for k in range(2):
        mesh.meshctl("send", peer, f"q{k}", "--from", name, "-e")
    done = mesh.run("ack", peer, "got it", "--from", name)
    assert re.fullmatch(r"sent [0-9a-f]{32}\n", done.stdout)
    assert done.stderr == "settled 2 pending entries\n"
    assert mesh.meshctl("pending", name) == "(no pending entries)\n"
    assert mesh.meshctl("inbox", peer).splitlines()[-1] == f"[DIRECT from {name}] ACK: got it"


# --- a reply that nobody waits for any more ---


def assert_sent(done: subprocess.CompletedProcess[str], asker: str) -> None:
    assert re.fullmatch(r"sent [0-9a-f]{32}\n", done.stdout)
    assert done.stderr.startswith(f"note: {asker} waits for it no longer: it was sent as a message\n")


def assert_late(home: Home, asker: str, replier: str, asked: dict[str, str]) -> None:
    late = question(home, asker)
    assert (late["from"], late["text"], late["re"]) == (replier, "main", asked["id"])


@pytest.mark.parametrize("where", ["reply_to", "id"])
def test_a_reply_that_comes_too_late_is_a_message(mesh: Home, name: str, peer: str, where: str) -> None:
    """Nothing is lost silently: who replies is told, and who asked has it in the inbox."""
    mesh.meshctl("register", peer)
    assert mesh.run("request", name, "which branch?", "--from", peer, "--timeout", "0.3").returncode == 1
    asked = question(mesh, name)
    done = mesh.run("reply", asked[where], "main", "--from", name)
    assert_sent(done, peer)
    assert_late(mesh, peer, name, asked)


def test_a_reply_that_comes_too_late_is_sent_once_however_often_it_is_repeated(
    mesh: Home, name: str, peer: str
) -> None:
    mesh.meshctl("register", peer)
    mesh.run("request", name, "?", "--from", peer, "--timeout", "0.3")
    asked, reply_id = question(mesh, name), "1" * 31 + "a"
    for _ in range(2):
        mesh.meshctl("reply", asked["id"], "main", "--from", name, "--id", reply_id)
    assert question(mesh, peer)["id"] == reply_id


def test_a_request_that_is_asked_again_waits_again(mesh: Home, name: str, peer: str) -> None:
    mesh.meshctl("register", peer)
    done = mesh.run("request", name, "?", "--from", peer, "--timeout", "0.3", "--json")
    asked = json.loads(done.stdout)["error"]["data"]["id"]
    assert question(mesh, name)["id"] == asked
    with running(mesh, "request", name, "?", "--from", peer, "--timeout", "20", "--id", asked) as asking:
        wait_until(lambda: mesh.run("reply", asked, "now", "--from", name).stdout == f"replied {asked}\n", "it waits")
        assert asking.end()[:2] == (0, "now\n")


def test_a_reply_to_who_was_killed_while_it_waited_is_a_message(mesh: Home, name: str, peer: str) -> None:
    """Also when it is given before anybody could know that nobody waits."""
    mesh.meshctl("register", peer)
    with running(mesh, "request", name, "?", "--from", peer, "--timeout", "60") as asking:
        asked = question(mesh, name)
        asking.process.kill()
        asking.process.wait()
    assert_sent(mesh.run("reply", asked["id"], "main", "--from", name), peer)
    assert_late(mesh, peer, name, asked)


@pytest.mark.parametrize("end", ["down", "Ctrl-C, then down", "kill -9 of both"])
def test_a_reply_to_who_lost_its_daemon_while_it_waited_is_a_message(home: Home, other: Home, end: str) -> None:
    """Whoever replies elsewhere is not told that all is well before somebody has the reply."""
    home.start()
    other.start()
    home.meshctl("register", "alice")
    other.meshctl("register", "bob")
    with running(home, "request", "bob", "which branch?", "--from", "alice", "--timeout", "60") as asking:
        asked = question(other, "bob")
        if end == "down":
            assert home.stop() == 0
            assert asking.end()[0] == 4
        elif end == "Ctrl-C, then down":
            asking.process.send_signal(signal.SIGINT)
            asking.process.wait()
            assert home.stop() == 0
        else:
            asking.kill()
            home.kill()
    assert_sent(other.run("reply", asked["id"], "main", "--from", "bob"), "alice")
    home.start()
    assert_late(home, "alice", "bob", asked)


def test_a_reply_after_a_deadline_that_the_store_slept_through_is_a_message(tmp_path: Path) -> None:
    store = Store(program("valkey"), tmp_path, "--appendonly", "yes")
    try:
        with a_home(tmp_path / "home", store.url) as home:
            home.start()
            home.meshctl("register", "alice")
            with running(home, "request", "bob", "which branch?", "--from", "alice", "--timeout", "2") as asking:
                asked = question(home, "bob")
                store.kill()
                assert asking.end()[0] == 1
            store.start()
            wait_until(lambda: home.run("status").returncode == 0, "the store is up")
            assert_sent(home.run("reply", asked["id"], "main", "--from", "bob"), "alice")
            assert_late(home, "alice", "bob", asked)
    finally:
        store.close()


def test_a_second_reply_is_a_message(mesh: Home, name: str, peer: str) -> None:
    """Also one that comes at the same time as the first; the first one again is the first one."""
    mesh.meshctl("register", peer)
    with running(mesh, "request", name, "which branch?", "--from", peer, "--timeout", "60") as asking:
        asked = question(mesh, name)
        for _ in range(2):
            done = mesh.meshctl("reply", asked["id"], "trunk", "--from", name, "--id", "1" * 32)
            assert done == f"replied {asked['id']}\n"
        assert asking.end()[:2] == (0, "trunk\n")
    assert_sent(mesh.run("reply", asked["id"], "main", "--from", name), peer)
    assert_late(mesh, peer, name, asked)


def test_of_many_replies_one_is_taken_and_the_others_are_messages(mesh: Home, name: str, peer: str) -> None:
    mesh.meshctl("register", peer)
    texts = [f"{k}" for k in range(5)]
    with running(mesh, "request", name, "which?", "--from", peer, "--timeout", "60") as asking:
        asked = question(mesh, name)
        replies = [mesh.begin("reply", asked["id"], text, "--from", name) for text in texts]
        code, taken, _ = asking.end()
        told = [process.communicate()[0].split()[0] for process in replies]
    assert code == 0
    assert sorted(told) == ["replied", *["sent"] * 4]
    assert told[texts.index(taken.strip())] == "replied"
    mail = wait_until(lambda: (m := mesh.json("inbox", peer, "--peek")["messages"])[3:] and m, "four messages")
    assert sorted([taken.strip(), *(message["text"] for message in mail)]) == texts


def test_a_reply_that_its_asker_had_no_time_to_take_is_a_message(mesh: Home, name: str, peer: str) -> None:
    """It is there, and the client that asked does not come to write it."""
    mesh.meshctl("register", peer)
    with running(mesh, "request", name, "which branch?", "--from", peer, "--timeout", "60") as asking:
        asked = question(mesh, name)
        asking.process.send_signal(signal.SIGSTOP)
        assert_sent(mesh.run("reply", asked["id"], "main", "--from", name), peer)
        asking.kill()
    assert_late(mesh, peer, name, asked)


# --- what else stands where a reply is waited for ---

NO_REPLIES: list[dict[str, Any]] = [
    {"from": 'ev"il\n name', "reply": "no"},
    {"from": "bob"},
    {"reply": "no"},
    {"from": "bob", "reply": b"\xff"},
    {"from": "bob", "reply": "x" * 65537},
    {"colour": "green"},
]


@pytest.mark.parametrize("patience", [30, 3])
def test_what_is_no_reply_is_passed_over(mesh: Home, mesh_store: Store, name: str, patience: int) -> None:
    """A peer writes what it likes. A good reply behind it is not lost; of a 0.1 program it has three fields."""
    with running(mesh, "request", name, "?", "--from", "alice", "--timeout", f"{patience}", "--json") as asking:
        asked = question(mesh, name)
        with mesh_store.client() as client:
            for fields in NO_REPLIES:
                client.xadd(asked["reply_to"], fields)
            if patience == 30:
                client.xadd(asked["reply_to"], {"from": "old", "reply": "yes", "ts": "1"})
        code, out, _ = asking.end()
    answer = json.loads(out)
    if patience == 30:
        assert (code, answer) == (0, {"reply": "yes", "from": "old", "id": asked["id"]})
    else:
        assert (code, answer["error"]["data"]["kind"]) == (1, "timeout")


def test_a_reply_of_0_1_to_who_has_just_gone_is_a_message(mesh: Home, mesh_store: Store, name: str, peer: str) -> None:
    mesh.meshctl("register", peer)
    with running(mesh, "request", name, "?", "--from", peer, "--timeout", "60") as asking:
        asked = question(mesh, name)
        asking.kill()
    with mesh_store.client() as client:
        client.xadd(asked["reply_to"], {"from": name, "reply": "main", "ts": "1"})
    assert_late(mesh, peer, name, asked)
    assert_sent(mesh.run("reply", asked["id"], "again", "--from", name), peer)
    assert question(mesh, peer)["text"] == "again"
