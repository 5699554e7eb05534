"""The MCP Inspector's command line, a client written by others in another language, against `meshctl mcp`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.claude import missing
from tests.helper import Home

PROGRAMS = Path(__file__).parent / "node_modules" / ".bin"
TOOLS: dict[str, dict[str, Any]] = {
    "mesh_send": {"to": "bob", "message": "hello", "private": True},
    "mesh_inbox": {"limit": 5},
    "mesh_reply": {"to": "mesh:reply:0123456789abcdef0123456789abcdef", "text": "yes"},
    "mesh_request": {"to": "bob", "message": "which?", "timeout_s": 0.2},
    "mesh_who": {},
    "mesh_register": {"name": "carol", "role": "tests"},
    "mesh_listen_once": {"timeout_s": 0.2},
    "mesh_broadcast": {"message": "all"},
    "mesh_ping": {"agent": "ann", "timeout_s": 2},
    "mesh_pending": {},
    "mesh_ack": {"peer": "bob", "text": "thanks"},
}


@pytest.fixture(scope="module")
def inspected(mesh: Home) -> Home:
    if not (PROGRAMS / "mcp-inspector").exists():
        pytest.skip(missing() or "the inspector is not installed: use tests/clients/run")
    mesh.meshctl("register", "bob")
    return mesh


def inspector(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of it. It passes on to a server only the variables that it is given."""
    ours = {k: v for k, v in home.env.items() if k.startswith(("XDG_", "AGENT_MESH_"))} | {"AGENT_MESH_NAME": "ann"}
    variables = [part for key, value in ours.items() for part in ("-e", f"{key}={value}")]
    server = [sys.executable, "-m", "meshctl", "mcp"]
    return subprocess.run(
        [PROGRAMS / "mcp-inspector", "--cli", *variables, *arguments, "--", *server],
        env=home.env | {"PATH": f"{PROGRAMS}{os.pathsep}{home.env['PATH']}"},
        cwd=home.path,
        capture_output=True,
        text=True,
        timeout=60,
    )


def call(home: Home, tool: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
    """The exit code and the result of a tool call."""
    pairs = [part for k, v in arguments.items() for part in ("--tool-arg", f"{k}={json.dumps(v)}")]
    done = inspector(home, "--method", "tools/call", "--tool-name", tool, *pairs)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_tools_are_listed_and_portable(inspected: Home) -> None:
    """`--strict` complains of schemas that some model providers refuse."""
    done = inspector(inspected, "--method", "tools/list", "--strict")
    assert done.returncode == 0, done.stderr
    assert {tool["name"] for tool in json.loads(done.stdout)["tools"]} == set(TOOLS)
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_can_be_called(inspected: Home, tool: str) -> None:
    code, result = call(inspected, tool, **TOOLS[tool])
    assert code == 0, result
    assert not result["isError"]
    assert result["structuredContent"]


def test_a_refused_call_is_a_tool_error(inspected: Home) -> None:
    code, result = call(inspected, "mesh_send", to="no such name", message="hello")
    assert code != 0
    assert result["isError"]
    assert "name" in result["content"][0]["text"]
