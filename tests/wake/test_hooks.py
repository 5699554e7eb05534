"""`meshctl hook -`: a session at work is told of mail between its steps: once, who and how many, and never a word."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helper import Home
from tests.wake.claude import Claude, agent, run_hook, send
from tests.wake.conftest import Begin

STEPS = ["UserPromptSubmit", "PostToolUse", "PostToolUseFailure", "PostToolBatch"]


def one_from(sender: str) -> str:
    return f"agent-mesh: 1 unread from {sender}: call mesh_inbox"


# --- told ---


@pytest.mark.parametrize("step", STEPS)
def test_told_between_two_steps_once(mesh: Home, bob: Claude, peer: str, step: str) -> None:
    """Not at the next step again, and not at the end of the turn."""
    assert bob.hook(step) is None
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    assert bob.hook(step) == one_from(peer)
    assert [bob.hook(step), bob.hook("PostToolBatch"), bob.hook("Stop")] == [None] * 3
    assert bob.read() == ["the launch code is 0000"]
    worked = bob.wake["worked"]
    assert worked["rung"] == "step"


def test_told_again_of_new_mail_with_all_that_is_unread(mesh: Home, bob: Claude, peer: str) -> None:
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
        bob.has(1)
        assert bob.hook("PostToolUse") == one_from(peer)
        send(rpc, bob.name, peer, "another")
        bob.has(3)
    names = ", ".join(sorted([peer, "another"]))
    assert bob.hook("PostToolUse") == f"agent-mesh: 3 unread from {names}: call mesh_inbox"


def test_the_line_stays_short_whoever_writes(mesh: Home, bob: Claude) -> None:
    """Five names, and how many more: a crowd with long names fills no context."""
    senders = [f"{k}{'x' * 63}" for k in range(9)]
    with mesh.rpc() as rpc:
        send(rpc, bob.name, *senders, senders[0])
    bob.has(10)
    shown = ", ".join(senders[:5])
    assert bob.hook("PostToolUse") == f"agent-mesh: 10 unread from {shown} and 4 more: call mesh_inbox"


def test_read_mail_is_not_told(mesh: Home, bob: Claude, peer: str) -> None:
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    bob.read()
    assert [bob.hook(step) for step in (*STEPS, "Stop")] == [None] * 5


def test_a_session_that_begins_is_told_what_waits(mesh: Home, begin: Begin, name: str, peer: str) -> None:
    with mesh.rpc() as rpc:
        send(rpc, name, peer)
    bob = begin(name)
    bob.has(1)
    assert bob.hook("SessionStart") == one_from(peer)
    assert bob.hook("UserPromptSubmit") is None


def test_mail_from_before_a_restart_of_the_daemon_is_told(own: Home, own_begin: Begin) -> None:
    """Also to a session that nothing can ring."""
    own.start()
    bob = own_begin("bob")
    with own.rpc() as rpc:
        send(rpc, "bob", "alice")
    bob.has(1)
    own.kill()
    own.start()
    bob.client.ok("mesh_pending")  # the shim is back
    assert bob.wake["waiting_since"] is not None
    assert bob.hook("PostToolBatch") == one_from("alice")


# --- the end of a turn ---


def test_at_the_end_of_a_turn_new_mail_lets_the_session_go_on(mesh: Home, bob: Claude, peer: str) -> None:
    """Once: the end of the turn that this adds is an end, whatever has come meanwhile."""
    bob.hook("UserPromptSubmit")
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
        bob.has(1)
        assert bob.hook("Stop") == one_from(peer)
        assert bob.wake["busy"]
        send(rpc, bob.name, peer)
        bob.has(2)
    assert bob.hook("Stop", stop_hook_active=True) is None
    assert not bob.wake["busy"]
    assert bob.hook("UserPromptSubmit") == f"agent-mesh: 2 unread from {peer}: call mesh_inbox"


def test_busy_from_a_prompt_to_the_end_of_its_turn(bob: Claude) -> None:
    assert not bob.wake["busy"]
    for step in STEPS:
        bob.hook(step)
        assert bob.wake["busy"]
    bob.hook("Stop")
    assert not bob.wake["busy"]


@pytest.mark.parametrize(
    ("event", "fields", "busy"),
    [
        ("Notification", {}, False),
        ("Notification", {"notification_type": "permission_prompt", "message": "Claude needs your permission"}, True),
        ("SessionStart", {"source": "clear"}, False),
        ("SessionStart", {"source": "compact"}, True),  # by itself, in the middle of a turn
        ("SessionEnd", {"reason": "clear"}, True),
        ("PreToolUse", {}, True),
        ("SubagentStop", {}, True),
        ("AnEventOfTomorrow", {}, True),
    ],
)
def test_what_else_happens_in_a_session(bob: Claude, event: str, fields: dict[str, str], busy: bool) -> None:
    """What says that it is idle, and what does not; none of it says anything."""
    bob.hook("UserPromptSubmit")
    assert bob.hook(event, **fields) is None
    assert bob.wake["busy"] is busy


# --- whose step it is ---


@pytest.mark.parametrize("event", ["PostToolUse", "PostToolBatch"])
def test_a_subagent_is_told_nothing_and_takes_nothing_from_its_session(
    mesh: Home, bob: Claude, peer: str, event: str
) -> None:
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    assert bob.hook(event, agent_id="a12", agent_type="general-purpose") is None
    assert bob.hook(event) == one_from(peer)


def test_another_session_is_told_nothing(mesh: Home, begin: Begin, bob: Claude, peer: str) -> None:
    """Neither a live one, nor one that nobody knows."""
    carol = begin(f"{bob.name}c")
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    assert carol.hook("PostToolUse") is None
    stranger = run_hook(mesh, bob.input("PostToolUse", session_id="nobody's"))
    assert (stranger.returncode, stranger.stdout) == (0, "")
    assert bob.hook("PostToolUse") == one_from(peer)


def test_a_conversation_that_was_cleared_is_told_anew(mesh: Home, bob: Claude, peer: str) -> None:
    """It has another id, in the same process, and remembers nothing of what the one before was told."""
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
        bob.has(1)
        assert bob.hook("UserPromptSubmit") == one_from(peer)
        bob.hook("SessionEnd", reason="clear")
        bob.id = "another"
        assert bob.hook("SessionStart", source="clear") == one_from(peer)
        assert bob.hook("UserPromptSubmit") is None
        send(rpc, bob.name, peer)
        bob.has(2)
    assert bob.hook("PostToolUse") == f"agent-mesh: 2 unread from {peer}: call mesh_inbox"


# --- it must never stop a session ---


@pytest.mark.parametrize("options", [[], ["--wait"]], ids=["step", "wait"])
@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\n",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"session_id": 7}',
        b"not JSON at all",
        b"\xff\xfe\x00\x01",
        b"\x00" * 100,
        b"[" * 100_000,
        b"x" * (3 << 20),
    ],
    ids=["empty", "newline", "half", "null", "list", "object", "number", "text", "binary", "zeros", "deep", "huge"],
)
def test_whatever_it_is_given_it_ends_with_0_and_says_nothing(mesh: Home, given: bytes, options: list[str]) -> None:
    """Exit code 2 would stop the session, and what is printed would be put before its model."""
    done = run_hook(mesh, given, *options)
    assert (done.returncode, done.stdout) == (0, "")
    assert "StopIteration" not in done.stderr


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_response": "cut in the middle of an emoji: \ud83d"},
        {"prompt": [{"type": "text", "text": "no longer a string"}]},
        {"stop_hook_active": None, "agent_id": None, "source": 7, "notification_type": {}},
        {"tool_response": float("nan")},
        {"tool_response": "x" * (3 << 20)},
    ],
    ids=["surrogate", "prompt", "types", "nan", "huge"],
)
def test_what_a_client_of_tomorrow_sends_does_not_keep_mail_from_it(
    mesh: Home, bob: Claude, peer: str, fields: dict[str, Any]
) -> None:
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    assert bob.hook("UserPromptSubmit", **fields) == one_from(peer)


@pytest.mark.parametrize("pid", ["", "x", "-1", "²", "9" * 5000, "0"])
def test_an_odd_process_id_is_no_process_id(mesh: Home, bob: Claude, peer: str, pid: str) -> None:
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    done = run_hook(mesh, bob.input("UserPromptSubmit"), CLAUDE_PID=pid)
    assert (done.returncode, done.stderr) == (0, "")
    assert one_from(peer) in done.stdout


def test_without_a_daemon_a_step_is_not_troubled_and_starts_nothing(own: Home) -> None:
    given = json.dumps({"session_id": "x", "hook_event_name": "PostToolUse"})
    done = run_hook(own, given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not os.path.exists(own.socket)
    assert not own.state.exists()


class Foreign:
    """A daemon of another version: it answers every call with one line, and then hangs up."""

    def __init__(self, path: str, answer: bytes) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                lines.readline()
                connection.sendall(self._answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


ANSWERS: dict[str, dict[str, Any]] = {
    "usage": {"result": {"out": "", "err": "meshctl: no command 'hook'\n", "code": 2}},
    "wake by its code": {"result": {"out": "", "err": "stop!\n", "code": 2}},
    "error": {"error": {"code": -32602, "message": "unknown", "data": {"kind": "usage", "hint": "", "exit_code": 2}}},
    "bare error": {"error": {"code": -32601, "message": "no method"}},
    "odd result": {"result": None},
}


@pytest.fixture(params=[*ANSWERS, "garbage", "nothing"])
def foreign(request: pytest.FixtureRequest) -> Iterator[str]:
    """The socket of such a daemon."""
    answer = {"garbage": b"\xff{]\n", "nothing": b""}.get(request.param)
    if answer is None:
        answer = json.dumps({"jsonrpc": "2.0", "id": 1, **ANSWERS[request.param]}).encode() + b"\n"
    with tempfile.TemporaryDirectory(prefix="mf") as folder:
        path = os.path.join(folder, "meshd.sock")
        daemon = Foreign(path, answer)
        yield path
        daemon.close()


@pytest.mark.parametrize("options", [[], ["--wait"]], ids=["step", "wait"])
def test_a_daemon_that_knows_no_hooks_stops_no_session(own: Home, foreign: str, options: list[str]) -> None:
    """Only the daemon's own word for a wake becomes the exit code that a client obeys."""
    given = json.dumps({"session_id": "x", "hook_event_name": "Stop"})
    done = run_hook(own, given, *options, AGENT_MESH_SOCKET=foreign, AGENT_MESH_NO_AUTOSTART="1")
    assert done.returncode != 2
    assert done.stdout == ""


def test_bad_options_stop_no_session(mesh: Home, own: Home) -> None:
    """As after an upgrade of the hooks alone, or of the program alone; with a daemon and without."""
    for home in (mesh, own):
        for arguments in (["hook", "--no-such-option", "-"], ["hook"], ["hook", "-", "-"]):
            done = home.run(*arguments, stdin="{}")
            assert (done.returncode, done.stdout) == (0, "")


def test_the_daemon_notes_nothing_of_a_stranger(mesh: Home, tmp_path: Path, name: str) -> None:
    """A hook of a session without the server makes no name and no session."""
    before = agent_names(mesh)
    given = json.dumps({"session_id": name, "cwd": str(tmp_path), "hook_event_name": "SessionStart"})
    assert run_hook(mesh, given).stdout == ""
    assert agent_names(mesh) == before


def agent_names(home: Home) -> set[str]:
    with home.rpc() as rpc:
        return {entry["name"] for entry in rpc.call("status")["agents"]}


def test_status_tells_that_mail_waits(mesh: Home, bob: Claude, peer: str) -> None:
    assert bob.wake["waiting_since"] is None
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    since = bob.wake["waiting_since"]
    assert since == pytest.approx(agent(mesh, bob.name)["last_received"], abs=2)
