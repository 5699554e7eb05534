"""The channel rung: a notification to a session that was started with this server as a channel. No real client takes
one without an account, so what is checked is what goes out to it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.helper import Home, wait_until
from tests.shim.client import Client
from tests.wake.claude import agent

# The shim's parent, with the options of a client that registers a channel in its arguments.
PARENT = ("sh", "-c", '"$0" -m meshctl mcp; :', sys.executable)


@pytest.mark.parametrize(
    "options",
    [("--channels", "plugin:agent-mesh@agent-mesh"), ("--dangerously-load-development-channels", "server:agent-mesh")],
    ids=["channels", "development"],
)
def test_a_registered_channel_is_declared_and_told(
    mesh: Home, tmp_path: Path, name: str, peer: str, options: tuple[str, ...]
) -> None:
    client = Client(mesh, tmp_path, command=(*PARENT, *options), AGENT_MESH_NAME=name)
    try:
        declared = client.initialize()["capabilities"]
        assert declared["experimental"] == {"claude/channel": {}}
        client.result(client.request("tools/list"))
        wait_until(lambda: agent(mesh, name)["wake"]["armed"] == ["channel"], "the channel is armed")
        mesh.meshctl("send", name, "a word of the peer", "--from", peer)
        wait_until(lambda: client.told, "the channel is told")
        assert client.told[0]["method"] == "notifications/claude/channel"
        assert client.told[0]["params"]["content"] == f"agent-mesh: 1 unread from {peer}: call mesh_inbox"
        client.ok("mesh_inbox")
        wait_until(lambda: agent(mesh, name)["wake"]["worked"], "the read is credited")
        assert agent(mesh, name)["wake"]["worked"]["rung"] == "channel"
    finally:
        client.close()


def test_an_unregistered_channel_is_neither_declared_nor_told(mesh: Home, tmp_path: Path, name: str) -> None:
    """Other channels of the same client are none of ours."""
    client = Client(mesh, tmp_path, command=(*PARENT, "--channels", "plugin:telegram@x"), AGENT_MESH_NAME=name)
    try:
        assert "experimental" not in client.initialize()["capabilities"]
        assert agent(mesh, name)["wake"]["armed"] == []
    finally:
        client.close()
