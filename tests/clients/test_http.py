"""The real Claude Code, with our server over HTTP: its name in a header, and a whole exchange of mail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.claude import Claude
from tests.clients.messages_api import Answer, Call, MessagesApi, Request
from tests.helper import Home, wait_until
from tests.mcp_http.serving import serving

ASKED = "please look into the mailbox"


def reader(request: Request) -> Answer:
    """A model that reads its mail when it is asked to, and answers what expects a reply."""
    for result in request.results:
        messages = json.loads(result.text)["messages"] if result.text.startswith('{"notice"') else []
        for message in messages:
            if message.get("expect_reply"):
                return Call(request.tool("mesh_reply"), {"to": message["id"], "text": "merged"})
    return Call(request.tool("mesh_inbox")) if ASKED in request.said else "done"


@pytest.mark.parametrize(("transport", "path"), [("http", "/mcp"), ("sse", "/sse")])
def test_a_session_reads_and_answers(lone: Home, tmp_path: Path, api: MessagesApi, transport: str, path: str) -> None:
    """The variable is the session's own: one configuration serves sessions of many names."""
    api.script = reader
    with serving(lone) as http:
        user = Claude.of(lone, tmp_path / "project", api)
        header = "Agent-Mesh-Name: ${AGENT_MESH_NAME:-}"
        url = http.url + path
        user.run("mcp", "add", "-s", "user", "--transport", transport, "agent-mesh", url, "--header", header)
        user.allow("mcp__agent-mesh")
        with user.session(AGENT_MESH_NAME="bob") as session:
            session.wait_server("agent-mesh")
            lone.meshctl("send", "bob", "may I merge?", "--from", "alice", "--expect-reply")
            session.ask(ASKED)
            wait_until(lambda: lone.json("pending", "alice")["entries"] == [], "it has answered")
            session.wait_idle()
        assert "[DIRECT from bob] merged" in lone.meshctl("inbox", "alice")
        assert lone.json("inbox", "bob")["messages"] == []
        assert "You are bob;" in api.turns[-1].text
