"""Whole sessions of the real Claude Code: woken when idle, told between steps when busy, and still there after a
crash of the daemon. The model is a script; everything else is real."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.clients.claude import PROGRAM, Claude, missing
from tests.clients.messages_api import Answer, Call, MessagesApi, Request
from tests.helper import Home, wait_until

HOOKS = Path(__file__).parents[2] / "packaging" / "claude-plugin" / "hooks" / "hooks.json"
PEER = "Another Claude session sent a message"  # how Claude Code shows a model what came through its inbox socket


def reader(request: Request) -> Answer:
    """A model that reads its mail when it is told of some, and answers what expects a reply."""
    for result in request.results:
        # Claude Code shows a model the structured result, not the text.
        messages = json.loads(result.text)["messages"] if result.text.startswith('{"notice"') else []
        for message in messages:
            if message.get("expect_reply"):
                return Call(request.tool("mesh_reply"), {"to": message["id"], "text": "merged"})
    if "unread from" in request.said:
        return Call(request.tool("mesh_inbox"))
    return "done"


@pytest.fixture
def user(lone: Home, tmp_path: Path, api: MessagesApi) -> Claude:
    """A user of Claude Code and of the mesh, with the server and the hooks as the plugin has them."""
    if why := missing():
        pytest.skip(why)
    api.script = reader
    made = Claude.of(lone, tmp_path / "bob", api)
    made.run("mcp", "add", "-s", "user", "agent-mesh", "--", "meshctl", "mcp")
    made.allow("mcp__agent-mesh")
    made.change(".claude/settings.json", hooks=json.loads(HOOKS.read_text())["hooks"])
    return made


def agent(home: Home, name: str) -> dict[str, Any]:
    """What `status` tells of an agent; nothing while the session is still starting the daemon."""
    said = json.loads(home.run("status", "--json").stdout)
    return next((dict(entry) for entry in said.get("agents", []) if entry["name"] == name), {})


def attached(home: Home, name: str = "bob") -> None:
    wait_until(lambda: "socket" in agent(home, name).get("wake", {}).get("armed", []), f"{name} can be woken")


def settled(home: Home, sender: str = "alice") -> None:
    wait_until(lambda: home.json("pending", sender)["entries"] == [], f"what {sender} is owed is settled")


def test_an_idle_session_is_woken_reads_and_answers(lone: Home, user: Claude, api: MessagesApi) -> None:
    """Mail starts a turn by itself; the model reads, replies, and the sender's entry is settled."""
    with user.session() as session:
        attached(lone)
        lone.meshctl("send", "bob", "may I merge?", "--from", "alice", "--expect-reply")
        told = api.wait_for("1 unread from alice: call mesh_inbox")
        assert PEER in told.said
        assert "may I merge?" not in told.text  # a wake carries no words of a peer
        settled(lone)
        assert "[DIRECT from bob] merged" in lone.meshctl("inbox", "alice")
        session.wait_idle()
    wake = agent(lone, "bob")
    assert wake["wake"]["worked"]["rung"] == "socket"
    assert wake["unread"] == 0


def test_install_is_all_that_a_user_does(lone: Home, tmp_path: Path, api: MessagesApi) -> None:
    """From nothing: `meshctl install claude`, and the next session is a member of the mesh."""
    api.script = reader
    user = Claude.of(lone, tmp_path / "bob", api)
    path = os.pathsep.join([str(PROGRAM.parent), user.env["PATH"]])
    said = lone.meshctl("install", "claude", "--yes", "--allow-tools", PATH=path)
    assert "installed for Claude Code" in said
    with user.session() as session:
        attached(lone)
        lone.meshctl("send", "bob", "may I merge?", "--from", "alice", "--expect-reply")
        api.wait_for("1 unread from alice: call mesh_inbox")
        settled(lone)
        session.wait_idle()
        assert agent(lone, "bob")["wake"]["armed"] == ["socket", "hook"]
        session.exit()
    wait_until(lambda: agent(lone, "bob")["wake"]["armed"] == [], "nothing of the session is left")


def test_a_busy_session_is_told_between_its_steps(lone: Home, user: Claude, api: MessagesApi, tmp_path: Path) -> None:
    """It is not interrupted: the next step's context says it, once, and nothing comes through the inbox socket."""
    file = tmp_path / "bob" / "notes.txt"
    file.write_text("nothing of interest")

    def script(request: Request) -> Answer:
        if "look at the notes" in request.said:
            lone.meshctl("send", "bob", "may I merge?", "--from", "alice", "--expect-reply")
            wait_until(lambda: agent(lone, "bob")["unread"] == 1, "the mail is there")
            return Call("Read", {"file_path": str(file)})
        return reader(request)

    api.script = script
    with user.session() as session:
        attached(lone)
        session.ask("look at the notes")
        told = api.wait_for("1 unread from alice: call mesh_inbox")
        assert "nothing of interest" in told.results[0].text
        settled(lone)
        session.wait_idle()
        assert not any(PEER in request.said for request in api.turns)
        assert sum("unread from" in request.said for request in api.turns) == 1
    assert agent(lone, "bob")["wake"]["worked"]["rung"] == "step"


def test_a_daemon_that_was_killed_costs_a_session_nothing(lone: Home, user: Claude, api: MessagesApi) -> None:
    with user.session() as session:
        attached(lone)
        lone.meshctl("send", "bob", "first", "--from", "alice", "--expect-reply")
        settled(lone)
        session.wait_idle()
        os.kill(lone.json("status")["pid"], 9)
        wait_until(lambda: lone.run("status").returncode == 0, "the session has started the daemon again")
        attached(lone)
        before = len(api.turns)
        lone.meshctl("send", "bob", "second", "--from", "alice", "--expect-reply")
        api.wait_for("1 unread from alice: call mesh_inbox", before)
        settled(lone)
        session.wait_idle()


def test_the_daemon_dies_while_the_model_thinks(lone: Home, user: Claude, api: MessagesApi) -> None:
    """Between the wake and the call: the call waits for the new daemon, and gives the mail."""

    def script(request: Request) -> Answer:
        if "unread from" in request.said and not killed:
            killed.append(lone.json("status")["pid"])
            os.kill(killed[0], 9)
        return reader(request)

    killed: list[int] = []
    api.script = script
    with user.session() as session:
        attached(lone)
        lone.meshctl("send", "bob", "may I merge?", "--from", "alice", "--expect-reply")
        settled(lone)
        session.wait_idle()
    assert killed


def test_the_waiting_hook_wakes_where_there_is_no_inbox_socket(lone: Home, user: Claude, api: MessagesApi) -> None:
    user.run("mcp", "remove", "-s", "user", "agent-mesh")
    hidden = ("env", "-u", "CLAUDE_CODE_MESSAGING_SOCKET", "meshctl", "mcp")
    user.run("mcp", "add", "-s", "user", "agent-mesh", "--", *hidden)
    with user.session() as session:
        for text in ("first", "second"):  # armed again by the hook that ends the woken turn
            wait_until(lambda: agent(lone, "bob").get("wake", {}).get("armed") == ["hook"], "the hook waits")
            before = len(api.turns)
            lone.meshctl("send", "bob", text, "--from", "alice", "--expect-reply")
            told = api.wait_for("1 unread from alice: call mesh_inbox", before)
            assert PEER not in told.said
            settled(lone)
            session.wait_idle()
    assert agent(lone, "bob")["wake"]["worked"]["rung"] == "hook"


def test_a_resumed_session_has_its_name_again(lone: Home, user: Claude) -> None:
    """Two sessions of one folder have two names; the second, resumed alone, is who it was."""

    def names() -> list[str]:
        said = json.loads(lone.run("who", "--json").stdout)
        return [entry["agent"] for entry in said.get("agents", []) if entry["session"]]

    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    with user.session("--session-id", first):
        attached(lone, "bob")
        with user.session("--session-id", second) as other:
            attached(lone, "bob-2")
            other.ask("hello")  # a session in which nothing was said cannot be resumed
            other.wait_idle()
            other.exit()
    wait_until(lambda: names() == [], "both have gone")
    with user.session("--resume", second):
        attached(lone, "bob-2")
        assert names() == ["bob-2"]
