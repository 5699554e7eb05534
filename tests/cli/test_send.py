"""send and broadcast: what they print, whom they speak for, and what they refuse."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from meshd.core.names import Keys, new_id
from tests.helper import Home, Store


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """What a command line prints: one kind of store is enough."""
    return mesh_store


ID = re.compile(r"sent ([0-9a-f]{32})\n")


def test_a_send_prints_its_id_on_standard_output_alone(mesh: Home, name: str) -> None:
    mesh.meshctl("register", name)
    done = mesh.run("send", name, "hello")
    assert ID.fullmatch(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_send_to_nobody_warns_on_standard_error_and_waits_in_the_store(mesh: Home, name: str) -> None:
    done = mesh.run("send", name, "hello", "--from", "alice")
    assert done.returncode == 0
    assert ID.fullmatch(done.stdout)
    assert done.stderr == f"warning: nobody holds the name {name} now; the message waits in the store\n"
    assert mesh.meshctl("inbox", name) == "[DIRECT from alice] hello\n"


def test_a_send_to_a_name_that_is_hosted_here_does_not_warn(mesh: Home, mesh_store: Store, name: str) -> None:
    """Right after its start, or after the store has lost its data, the daemon is about to take the lease again."""
    mesh.meshctl("register", name)
    keys = Keys(mesh.json("status")["prefix"])
    with mesh_store.client() as client:
        assert client.delete(keys.lease(name), keys.registry(name))
    done = mesh.run("send", name, "hello")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "variables", "sender"),
    [
        ((), {}, "cli"),
        ((), {"AGENT_MESH_NAME": "env-name"}, "env-name"),
        (("--from", "given"), {"AGENT_MESH_NAME": "env-name"}, "given"),
    ],
)
def test_the_sender_is_the_option_then_the_variable_then_cli(
    mesh: Home, name: str, options: tuple[str, ...], variables: dict[str, str], sender: str
) -> None:
    mesh.meshctl("send", name, "hello", *options, **variables)
    assert mesh.meshctl("inbox", name) == f"[DIRECT from {sender}] hello\n"


def test_before_cli_the_sender_is_the_configured_name(home: Home) -> None:
    """Of a command and of a program, read again at a reload; not that of the shell that has started the daemon."""
    home.config.parent.mkdir(parents=True)
    home.config.write_text('name = "cfg"')
    home.env["AGENT_MESH_NAME"] = "starter"
    home.start()
    del home.env["AGENT_MESH_NAME"]
    home.meshctl("send", "bob", "1")
    home.meshctl("send", "bob", "2", AGENT_MESH_NAME="env")
    home.meshctl("send", "bob", "3", "--from", "given")
    with home.rpc() as program:
        program.call("send", target="bob", message="4")
        program.call("hello", name="prog")
        program.call("send", target="bob", message="5")
    home.config.write_text("")
    home.meshctl("reload")
    home.meshctl("send", "bob", "6")
    assert [m["from"] for m in home.json("inbox", "bob")["messages"]] == ["cfg", "env", "given", "cfg", "prog", "cli"]


def test_a_dash_reads_the_message_from_standard_input(mesh: Home, name: str) -> None:
    mesh.meshctl("send", name, "-", stdin="two\nlines\n")
    (message,) = mesh.json("inbox", name)["messages"]
    assert message["text"] == "two\nlines"


def test_json_of_a_send_is_one_document_that_tells_everything(mesh: Home, name: str) -> None:
    mesh.meshctl("register", name)
    answer = mesh.json("send", name, "hello", "--id", f"my-{name}")
    assert answer["status"] == "sent"
    assert (answer["id"], answer["to"], answer["held"], answer["again"]) == (f"my-{name}", name, True, False)


def test_the_same_id_again_is_not_sent_twice(mesh: Home, name: str) -> None:
    for again in (False, True):
        assert mesh.json("send", name, "once", "--id", f"id-{name}")["again"] is again
    assert mesh.meshctl("inbox", name) == "[DIRECT from cli] once\n"


@pytest.mark.parametrize(
    "other",
    [
        ("send", "{peer}", "once", "--from", "alice"),
        ("send", "{name}", "twice", "--from", "alice"),
        ("send", "{name}", "once", "--from", "bob"),
        ("send", "{name}", "once", "--from", "alice", "--re", "an-id"),
        ("send", "{peer}", "once", "--from", "alice", "--expect-reply"),
        ("broadcast", "once", "--from", "alice"),
        ("request", "{name}", "once", "--from", "alice", "--timeout", "20"),
        ("ack", "{name}", "once", "--from", "alice"),
    ],
)
def test_the_id_of_another_message_is_refused(
    mesh: Home, mesh_store: Store, name: str, peer: str, other: tuple[str, ...]
) -> None:
    """It would be taken for a repetition, and told to be sent. Nothing happens, and no reply is waited for."""
    for agent in (name, peer):
        mesh.meshctl("register", agent)
    taken = new_id()
    mesh.meshctl("send", name, "once", "--from", "alice", "--id", taken)
    done = mesh.run(*(word.format(name=name, peer=peer) for word in other), "--id", taken)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"another message was sent under the id {taken}\n  next: " in done.stderr
    assert [message["text"] for message in mesh.json("inbox", name)["messages"]] == ["once"]
    assert mesh.json("inbox", peer)["messages"] == []
    assert taken not in mesh.run("pending", "alice").stdout
    with mesh_store.client() as client:
        stream: Any = client.xinfo_stream(f"mesh:to_{name}")
    assert stream["entries-added"] == 1
    assert mesh.json("send", name, "once", "--from", "alice", "--id", taken)["again"]


def test_a_repetition_may_count_its_deadline_anew(mesh: Home, name: str) -> None:
    """As each run of a command does: it is the same message."""
    for again, within in enumerate(("30", "60")):
        sent = mesh.json("send", name, "?", "--from", name, "-e", "--within", within, "--id", f"e-{name}")
        assert sent["again"] is bool(again)


@pytest.mark.parametrize("flag", ["--private", "-p"])
def test_a_private_message_leaves_no_copy_in_the_group(
    mesh: Home, mesh_store: Store, name: str, peer: str, flag: str
) -> None:
    private = mesh.json("send", name, "secret", flag)["id"]
    public = mesh.json("send", peer, "open")["id"]
    with mesh_store.client() as client:
        copies = {fields[b"id"].decode() for _, fields in client.xrange("mesh:group")}
    assert public in copies
    assert private not in copies
    assert mesh.meshctl("inbox", name) == "[DIRECT from cli] secret\n"


def test_re_and_thread_reach_the_receiver(mesh: Home, name: str) -> None:
    mesh.meshctl("send", name, "answer", "--re", "an-id", "--thread", "talk")
    (message,) = mesh.json("inbox", name)["messages"]
    assert (message["re"], message["thread"]) == ("an-id", "talk")


def test_a_broadcast_reaches_every_agent_but_its_sender(mesh: Home, name: str, peer: str) -> None:
    for agent in (name, peer):
        mesh.meshctl("register", agent)
    sent = mesh.meshctl("broadcast", "lunch", "--from", peer)
    assert ID.fullmatch(sent)
    assert mesh.meshctl("inbox", name) == f"[GROUP from {peer}] lunch\n"
    assert mesh.meshctl("inbox", peer) == ""


def test_a_broadcast_from_standard_input_as_json(mesh: Home, name: str) -> None:
    mesh.meshctl("register", name)
    done = mesh.run("broadcast", "-", "--json", stdin="lunch")
    assert json.loads(done.stdout)["to"] == "*"
    assert mesh.meshctl("inbox", name) == "[GROUP from cli] lunch\n"


def test_over_the_gate_limit_a_send_is_delivered_with_a_warning(home: Home) -> None:
    """The default gate observes: nothing is withheld."""
    home.env["AGENT_MESH_GATE_LIMIT"] = "2"
    home.start()
    home.meshctl("register", "bob")
    done = [home.run("send", "bob", str(k)) for k in range(3)]
    assert [d.returncode for d in done] == [0, 0, 0]
    assert [d.stderr for d in done] == ["", "", "warning: 3 messages to bob within 10 s, over the limit\n"]
    assert len(home.json("inbox", "bob")["messages"]) == 3


def test_an_enforced_gate_denies_with_exit_code_1(home: Home) -> None:
    """A denied message is said to be denied, says when to try again, and is not delivered."""
    home.env |= {"AGENT_MESH_GATE_ENFORCE": "1", "AGENT_MESH_GATE_LIMIT": "1"}
    home.start()
    home.meshctl("register", "bob")
    home.meshctl("send", "bob", "first")
    done = home.run("send", "bob", "second")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"^denied: 2 messages from cli to bob within 10 s.*\n  next: try again in \d+ s", done.stderr)
    assert home.meshctl("inbox", "bob") == "[DIRECT from cli] first\n"


def test_a_store_out_of_reach_is_exit_code_4_within_the_deadline(tmp_path: object, lone: Home) -> None:
    """The command ends with a clear error, the daemon lives and says the same in `status`."""
    lone.env["AGENT_MESH_REDIS_URL"] = f"unix://{lone.path}/nobody.sock"
    daemon = lone.start()
    done = lone.run("send", "bob", "hello")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("not sent: ")
    assert "\n  next: " in done.stderr
    status = lone.run("status")
    assert status.returncode == 4
    assert "store:  down" in status.stdout
    assert daemon.poll() is None
