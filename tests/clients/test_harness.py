"""The harness itself: a real session with a tiny MCP server, asked by its user and woken by its server."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from tests.clients.claude import Claude
from tests.clients.messages_api import Answer, Call, MessagesApi, Request, Text

# Adds numbers, and writes each line that comes out of a FIFO to its session's own socket.
SERVER = """
import json, os, socket, sys, threading

def wake(fifo):
    while True:
        with open(fifo) as lines:
            for line in lines:
                with socket.socket(socket.AF_UNIX) as session:
                    session.connect(os.environ["CLAUDE_CODE_MESSAGING_SOCKET"])
                    token = os.environ["CLAUDE_CODE_MESSAGING_TOKEN"]
                    user = {"role": "user", "content": line.strip()}
                    for frame in ({"type": "auth", "token": token}, {"type": "user", "message": user}):
                        session.sendall(json.dumps(frame).encode() + b"\\n")

threading.Thread(target=wake, args=[os.environ["FIFO"]], daemon=True).start()
TOOL = {"name": "add", "description": "Adds.", "inputSchema": {"type": "object"}}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    answer = {"jsonrpc": "2.0", "id": asked["id"]}
    if asked["method"] == "initialize":
        answer["result"] = {
            "protocolVersion": asked["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "sums", "version": "1"},
        }
    elif asked["method"] == "tools/list":
        answer["result"] = {"tools": [TOOL]}
    elif asked["method"] == "tools/call":
        text = f"the sum is {sum(asked['params']['arguments']['numbers'])}"
        answer["result"] = {"content": [{"type": "text", "text": text}]}
    else:
        answer["error"] = {"code": -32601, "message": "unknown method"}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def fifo(claude: Claude, tmp_path: Path) -> Path:
    """The user has the server above; a line into this wakes the session."""
    script, fifo = tmp_path / "server.py", tmp_path / "fifo"
    script.write_text(SERVER)
    os.mkfifo(fifo)
    claude.server("sums", sys.executable, str(script), FIFO=str(fifo))
    return fifo


def adds(request: Request) -> Answer:
    """The model: asked for a sum it calls the tool, and says what it was told."""
    if request.results:
        return request.results[0].text
    if "please add" in request.said:
        return Call(request.tool("add"), {"numbers": [19, 23]})
    return "ok"


@pytest.mark.usefixtures("fifo")
def test_a_prompt_is_answered_through_a_tool_call(claude: Claude, api: MessagesApi) -> None:
    """The whole way: keys, model, tool, model, screen. The user is asked for the tool, as no rule allows it."""
    api.script = adds
    with claude.session() as session:
        session.wait_server("sums")
        session.ask("please add 19 and 23")
        session.wait_screen("Do you want to proceed?")
        assert not session.idle
        session.confirm("Do you want to proceed?")
        session.wait_screen("the sum is 42")
        session.wait_idle()
        session.exit()
        assert "--resume" in session.screen()
    assert [bool(turn.results) for turn in api.turns] == [False, True, True]  # asked, found the tool, called it


@pytest.mark.usefixtures("fifo")
def test_a_rule_allows_a_servers_tools(claude: Claude, api: MessagesApi) -> None:
    claude.allow("mcp__sums")
    api.script = adds
    with claude.session() as session:
        session.wait_server("sums")
        session.ask("please add 19 and 23")
        session.wait_screen("the sum is 42")


def test_an_idle_session_is_woken_by_its_server(claude: Claude, api: MessagesApi, fifo: Path) -> None:
    """The user's draft stays in the prompt."""
    with claude.session() as session:
        session.ask("hello")
        session.wait_idle()
        session.write("a draft")
        before = len(api.turns)
        fifo.write_text("2 unread from b\n")
        assert "2 unread from b" in api.next_turn(before).said
        session.wait_screen("❯ a draft")


def test_a_wake_waits_for_the_turn_that_runs(claude: Claude, api: MessagesApi, fifo: Path) -> None:
    """The answer under way is finished first; then the model hears it."""
    gate = threading.Event()
    api.script = lambda request: Text("half of it, all of it", gate) if "be slow" in request.said else "ok"
    with claude.session() as session:
        session.ask("be slow")
        fifo.write_text("2 unread from b\n")
        session.wait_screen("2 unread from b")
        assert len(api.turns) == 1
        assert not session.idle
        gate.set()
        assert "2 unread from b" in api.next_turn(1).said
        session.wait_screen("all of it")


def test_a_script_that_fails_fails_the_test() -> None:
    """An error on the request's thread is not lost there."""
    with pytest.raises(ZeroDivisionError), MessagesApi(lambda request: str(1 // 0)) as api:
        api.answer({}, {"messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "Agent"}]})
