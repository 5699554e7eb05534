"""The tools, one by one: their results, their schemas, and what a model reads."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]  # has no stubs
import pytest

from tests.helper import Home
from tests.shim.client import Client, Reply
from tests.shim.conftest import Open

BUDGET = 6 * 1024
PARAMETERS = {
    "mesh_send": ["to", "message", "from_agent", "private", "expect_reply", "within_s", "re"],
    "mesh_ping": ["agent", "timeout_s"],
    "mesh_who": [],
    "mesh_register": ["name", "role"],
    "mesh_listen_once": ["name", "timeout_s"],
    "mesh_request": ["to", "message", "from_agent", "timeout_s"],
    "mesh_pending": ["name"],
    "mesh_inbox": ["name", "limit", "peek"],
    "mesh_reply": ["to", "text", "from_agent"],
    "mesh_ack": ["peer", "text", "from_agent"],
    "mesh_broadcast": ["message", "from_agent"],
}
REQUIRED = {
    "mesh_send": ["to", "message"],
    "mesh_ping": ["agent"],
    "mesh_register": ["name"],
    "mesh_request": ["to", "message"],
    "mesh_reply": ["to", "text"],
    "mesh_ack": ["peer", "text"],
    "mesh_broadcast": ["message"],
}


@pytest.fixture
def alice(session: Open, name: str) -> Client:
    return session(name)


def checked(client: Client, tool: str, /, **arguments: Any) -> Reply:
    """A successful call whose structured result is what the tool's schema says."""
    listed = {shown["name"]: shown for shown in client.result(client.request("tools/list"))["tools"]}
    jsonschema.validate(arguments, listed[tool]["inputSchema"])
    reply = client.call(tool, **arguments)
    assert not reply.failed, reply.text
    jsonschema.validate(reply.data, listed[tool]["outputSchema"])
    return reply


def test_the_server_says_who_it_is_and_by_which_name_the_session_goes(mesh: Home, session: Open, name: str) -> None:
    client = session(name)
    said = client.answers["1"][0]["result"]
    assert said["serverInfo"]["name"] == "agent-mesh"
    assert said["serverInfo"]["version"]
    assert said["protocolVersion"] == "2025-06-18"
    assert "tools" in said["capabilities"]
    assert not {"logging", "experimental"} & set(said["capabilities"])
    assert f"You are {name};" in said["instructions"]


def test_there_are_eleven_tools_with_the_parameters_of_the_contract(alice: Client) -> None:
    tools = alice.result(alice.request("tools/list"))["tools"]
    assert {tool["name"]: list(tool["inputSchema"]["properties"]) for tool in tools} == PARAMETERS
    assert {t["name"]: t["inputSchema"]["required"] for t in tools if t["inputSchema"]["required"]} == REQUIRED
    for tool in tools:
        jsonschema.Draft202012Validator.check_schema(tool["inputSchema"])
        jsonschema.Draft202012Validator.check_schema(tool["outputSchema"])


def test_all_that_a_model_must_know_costs_six_kilobytes(alice: Client) -> None:
    """The tool list and the handshake with its instructions, as the bytes that are sent."""
    alice.result(alice.request("tools/list"))
    assert sum(map(len, alice.lines)) <= BUDGET
    said = alice.answers["1"][0]["result"]
    assert len(said["instructions"].encode()) <= 2048


def test_the_default_of_each_parameter_is_the_contracts(alice: Client) -> None:
    tools = {tool["name"]: tool["inputSchema"] for tool in alice.result(alice.request("tools/list"))["tools"]}
    defaults = {"mesh_ping": 5, "mesh_listen_once": 5, "mesh_request": 60}
    assert {tool: tools[tool]["properties"]["timeout_s"]["default"] for tool in defaults} == defaults
    assert tools["mesh_send"]["properties"]["within_s"]["default"] == 120


def test_send(session: Open, alice: Client, peer: str) -> None:
    bob = session(peer)
    reply = checked(alice, "mesh_send", to=peer, message="hello")
    assert reply.data["ok"] is True
    assert reply.text == f"sent {reply.data['id']}"
    [message] = bob.ok("mesh_inbox")["messages"]
    assert (message["id"], message["text"]) == (reply.data["id"], "hello")


def test_send_to_nobody_says_that_it_waits(alice: Client, peer: str) -> None:
    reply = checked(alice, "mesh_send", to=peer, message="hello")
    assert (reply.data["ok"], reply.data["held"]) == (True, False)
    assert reply.text.startswith(f"sent {reply.data['id']}; nobody goes by that name now")


def test_ping(session: Open, alice: Client, peer: str) -> None:
    session(peer)
    reply = checked(alice, "mesh_ping", agent=peer)
    assert reply.data == {"ok": True, "latency_ms": reply.data["latency_ms"]}
    assert reply.text == f"pong in {reply.data['latency_ms']} ms"


def test_ping_of_nobody_is_no_error(alice: Client, peer: str) -> None:
    reply = checked(alice, "mesh_ping", agent=peer, timeout_s=0.05)
    assert reply.data == {"ok": False, "latency_ms": None}
    assert reply.text == "no pong in time"


def test_who(session: Open, alice: Client, name: str, peer: str) -> None:
    session(peer)
    alice.ok("mesh_register", name=name, role="reads & writes")
    reply = checked(alice, "mesh_who")
    assert set(reply.data) == {"agents", "more", "notice"}
    found = {agent["agent"]: agent for agent in reply.data["agents"]}
    assert found[name]["role"] == "reads & writes"
    assert found[peer]["session"] is True
    assert reply.text.startswith(reply.data["notice"])
    assert f'<agent name="{name}" role="reads &amp; writes" ' in reply.text


def test_register(alice: Client, peer: str) -> None:
    reply = checked(alice, "mesh_register", name=peer)
    assert reply.data == {"ok": True, "name": peer, "unread": 0}
    assert reply.text == f"you are {peer}; 0 unread"


def test_listen_once(mesh: Home, alice: Client, name: str, peer: str) -> None:
    sent = mesh.json("send", name, "a <question>", "--from", peer)
    reply = checked(alice, "mesh_listen_once")
    assert set(reply.data) == {"message", "notice"}
    message = reply.data["message"]
    assert (message["id"], message["from"], message["text"]) == (sent["id"], peer, "a <question>")
    notice, block = reply.text.split("\n")
    assert notice == reply.data["notice"]
    assert block == f'<peer-message from="{peer}" id="{sent["id"]}" kind="direct">a &lt;question&gt;</peer-message>'


def test_listen_once_in_vain_is_no_error(alice: Client) -> None:
    reply = checked(alice, "mesh_listen_once", timeout_s=0.05)
    assert reply.data["message"] is None
    assert reply.text == "no message in time"


def test_request(session: Open, alice: Client, peer: str) -> None:
    bob = session(peer)
    asked = alice.begin("mesh_request", to=peer, message="which branch?")
    question = bob.ok("mesh_listen_once", timeout_s=20)["message"]
    bob.ok("mesh_reply", to=question["id"], text="main")
    reply = alice.finish(asked)
    assert {key: reply.data[key] for key in ("reply", "from", "id")} == {
        "reply": "main",
        "from": peer,
        "id": question["id"],
    }
    assert (
        reply.text == f'{reply.data["notice"]}\n<peer-message from="{peer}" re="{question["id"]}">main</peer-message>'
    )


def test_request_in_vain_is_no_error(alice: Client, peer: str) -> None:
    reply = checked(alice, "mesh_request", to=peer, message="anybody?", timeout_s=0.05)
    assert reply.data["reply"] is None
    assert reply.text == "no reply in time; one that comes later comes as mail"


def test_pending(alice: Client, peer: str) -> None:
    reply = checked(alice, "mesh_pending")
    assert (reply.data, reply.text) == ({"entries": []}, "no pending entries")
    sent = alice.ok("mesh_send", to=peer, message="well?", expect_reply=True, within_s=60)
    reply = checked(alice, "mesh_pending")
    [entry] = reply.data["entries"]
    assert (entry["id"], entry["to"], entry["text"], entry["state"]) == (sent["id"], peer, "well?", "open")
    assert reply.text == f"{sent['id']} to {peer}: open, 0 reminders, your words: well?"


def test_inbox(mesh: Home, alice: Client, name: str, peer: str) -> None:
    sent = [mesh.json("send", name, f"m{k}", "--from", peer)["id"] for k in range(3)]
    reply = checked(alice, "mesh_inbox", limit=2)
    assert [message["id"] for message in reply.data["messages"]] == sent[:2]
    assert (reply.data["lost"], reply.data["more"]) == (0, 1)
    assert reply.text.count("<peer-message ") == 2
    assert reply.text.endswith("\n1 more: call mesh_inbox again")
    assert [message["id"] for message in checked(alice, "mesh_inbox").data["messages"]] == sent[2:]
    assert checked(alice, "mesh_inbox").text == "no unread messages"


def test_a_look_leaves_mail_unread(mesh: Home, alice: Client, name: str, peer: str) -> None:
    mesh.meshctl("send", name, "hello", "--from", peer)
    for _ in range(2):
        assert [m["text"] for m in checked(alice, "mesh_inbox", peek=True).data["messages"]] == ["hello"]
    assert alice.texts() == ["hello"]


def test_reply(mesh: Home, session: Open, alice: Client, name: str, peer: str) -> None:
    bob = session(peer)
    sent = alice.ok("mesh_send", to=peer, message="well?")
    bob.texts()
    reply = checked(bob, "mesh_reply", to=sent["id"], text="yes")
    assert reply.data["ok"] is True
    assert reply.text == f"replied {reply.data['id']}"
    [answer] = alice.ok("mesh_inbox")["messages"]
    assert (answer["re"], answer["from"], answer["text"]) == (sent["id"], peer, "yes")


def test_ack(session: Open, alice: Client, peer: str) -> None:
    bob = session(peer)
    sent = alice.ok("mesh_send", to=peer, message="well?", expect_reply=True)
    reply = checked(alice, "mesh_ack", peer=peer, text="never mind")
    assert (reply.data["ok"], reply.data["settled"]) == (True, [sent["id"]])
    assert reply.text == "settled 1"
    assert bob.texts() == ["well?", "ACK: never mind"]
    assert alice.ok("mesh_pending")["entries"] == []


def test_broadcast(session: Open, alice: Client, peer: str) -> None:
    bob = session(peer)
    reply = checked(alice, "mesh_broadcast", message=f"to all of you, {peer}")
    assert (reply.data["ok"], reply.text) == (True, f"sent {reply.data['id']}")
    [message] = [m for m in bob.ok("mesh_inbox", limit=1000)["messages"] if m["id"] == reply.data["id"]]
    assert (message["kind"], message["text"]) == ("broadcast", f"to all of you, {peer}")


def test_the_text_of_a_result_says_the_same_as_its_structure(mesh: Home, alice: Client, name: str, peer: str) -> None:
    """Every fact of a message that a model needs for its answer is in both."""
    sent = mesh.json("send", name, "well?", "--from", peer, "--expect-reply")
    reply = checked(alice, "mesh_inbox")
    [message] = reply.data["messages"]
    assert message["expect_reply"] is True
    assert reply.text == (
        f'{reply.data["notice"]}\n<peer-message from="{peer}" id="{sent["id"]}" kind="direct" expects="reply">'
        "well?</peer-message>"
    )
