"""The official SDK's own client speaks with the shim: it validates each result, and believes nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import REQUEST_TIMEOUT

from tests.helper import Home, eventually
from tests.shim.daemon import gateway_pid, kill, waiting


@contextlib.asynccontextmanager
async def sdk_session(home: Home, folder: Path, name: str) -> AsyncIterator[ClientSession]:
    """A session of the SDK's client after its handshake."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {k: v for k, v in home.env.items() if not k.startswith("CLAUDE")} | {"AGENT_MESH_NAME": name}
    server = StdioServerParameters(command=sys.executable, args=["-m", "meshctl", "mcp"], env=env, cwd=folder)
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield session


async def ok(session: ClientSession, tool: str, /, **arguments: object) -> dict[str, Any]:
    """The structured result of a tool that must succeed; the client has checked it against the tool's schema."""
    result = await session.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def test_every_tool_passes_the_clients_own_validation(mesh: Home, tmp_path: Path, name: str, peer: str) -> None:
    """It compares each structured result with the schema that the server listed."""
    async with sdk_session(mesh, tmp_path, name) as alice, sdk_session(mesh, tmp_path, peer) as bob:
        assert len((await alice.list_tools()).tools) == 11
        await bob.list_tools()
        sent = await ok(alice, "mesh_send", to=peer, message="well?", expect_reply=True)
        assert [entry["id"] for entry in (await ok(alice, "mesh_pending"))["entries"]] == [sent["id"]]
        assert [m["text"] for m in (await ok(bob, "mesh_inbox"))["messages"]] == ["well?"]
        await ok(bob, "mesh_reply", to=sent["id"], text="yes")
        assert (await ok(alice, "mesh_listen_once", timeout_s=20))["message"]["re"] == sent["id"]
        await ok(alice, "mesh_ack", peer=peer, text="thanks")
        await ok(alice, "mesh_broadcast", message="hello")
        assert (await ok(alice, "mesh_ping", agent=peer))["ok"]
        assert (await ok(alice, "mesh_request", to=peer, message="still?", timeout_s=0.05))["reply"] is None
        assert {name, peer} <= {agent["agent"] for agent in (await ok(alice, "mesh_who"))["agents"]}
        assert (await ok(alice, "mesh_register", name=f"{name}-x"))["name"] == f"{name}-x"


async def test_a_client_that_gives_up_takes_no_mail_with_it(mesh: Home, tmp_path: Path, name: str) -> None:
    """Its own timeout cancels the call, and the mail that comes then is for the next one."""
    async with sdk_session(mesh, tmp_path, name) as alice:
        with pytest.raises(MCPError) as refused:
            await alice.call_tool("mesh_listen_once", {"timeout_s": 600}, read_timeout_seconds=0.3)
        assert refused.value.error.code == REQUEST_TIMEOUT
        await eventually(lambda: waiting(mesh, name) == 0, "the call has ended")
        mesh.meshctl("send", name, "hello")
        assert (await ok(alice, "mesh_listen_once", timeout_s=20))["message"]["text"] == "hello"


async def test_progress_reaches_the_clients_callback(mesh: Home, tmp_path: Path, name: str) -> None:
    told: list[tuple[float, float | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total))

    async with sdk_session(mesh, tmp_path, name) as alice:
        await alice.call_tool("mesh_listen_once", {"timeout_s": 0.3}, progress_callback=tell)
        assert told == [(0.0, 0.3)]


async def test_a_client_outlives_the_gateway(own: Home, tmp_path: Path) -> None:
    """It sees one answer, and no end of its streams."""
    own.start()
    async with sdk_session(own, tmp_path, "alice") as alice, anyio.create_task_group() as group:
        heard: list[str] = []

        async def hear() -> None:
            heard.append((await ok(alice, "mesh_listen_once", timeout_s=60))["message"]["text"])

        group.start_soon(hear)
        await eventually(lambda: waiting(own, "alice") == 1, "it listens")
        kill(gateway_pid(own))
        await ok(alice, "mesh_send", to="alice", message="hello")
        await eventually(lambda: heard == ["hello"], "it has heard")


async def test_a_client_that_looks_for_the_newest_protocol_finds_the_handshake(
    mesh: Home, tmp_path: Path, name: str
) -> None:
    """The way by which Claude Code comes: discovery, which is refused, then the handshake in the same process."""
    env = {k: v for k, v in mesh.env.items() if not k.startswith("CLAUDE")} | {"AGENT_MESH_NAME": name}
    server = StdioServerParameters(command=sys.executable, args=["-m", "meshctl", "mcp"], env=env, cwd=tmp_path)
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        with pytest.raises(MCPError) as refused:
            await session.discover()
        assert refused.value.error.code == -32601
        assert (await session.initialize()).server_info.name == "agent-mesh"
        assert (await ok(session, "mesh_who"))["agents"]
