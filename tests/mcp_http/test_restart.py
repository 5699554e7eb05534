"""The daemon comes and goes; the HTTP server stays."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx2

from tests.helper import Home, Store, a_home, eventually, program, wait_until
from tests.mcp_http.serving import HANDSHAKE, Raw, connected, data, serving, sessions, text, unread

LONG = 60.0


def test_it_starts_the_daemon_if_there_is_none(own: Home) -> None:
    with serving(own) as http:
        assert httpx2.get(f"{http.url}/health").json()["ok"]
        pid = own.json("status")["pid"]
    assert own.json("status")["pid"] == pid, "it ends, the daemon stays"


def test_it_can_be_forbidden_to(own: Home) -> None:
    with serving(own, AGENT_MESH_NO_AUTOSTART="1") as http:
        answer = httpx2.get(f"{http.url}/health")
        assert (answer.status_code, answer.json()["ok"], answer.json()["daemon"]) == (503, False, None)
        assert "\nmesh_up 0\n" in httpx2.get(f"{http.url}/metrics").text
        own.start()
        assert httpx2.get(f"{http.url}/health").status_code == 200


async def test_a_session_outlives_the_daemon(own: Home, transport: str) -> None:
    own.start()
    with serving(own) as http:
        async with connected(http, transport, "alice") as alice:
            data(await alice.call_tool("mesh_send", {"to": "alice", "message": "before"}))
            own.kill()
            own.start()
            sent = data(await alice.call_tool("mesh_send", {"to": "alice", "message": "after"}))
            assert sent["held"]
            texts = [m["text"] for m in data(await alice.call_tool("mesh_inbox", {}))["messages"]]
            assert texts == ["before", "after"]
            assert sessions(own, "alice") == 1


async def test_a_call_that_waits_is_answered_by_the_next_daemon(own: Home, transport: str) -> None:
    """Killed, and stopped in order: the call is asked again each time, and gets the mail that comes then."""
    own.start()
    with serving(own) as http:
        async with connected(http, transport, "alice") as alice:
            waiting = asyncio.create_task(alice.call_tool("mesh_listen_once", {"timeout_s": LONG}))
            for end in (own.kill, own.stop):
                await eventually(lambda: sessions(own, "alice") == 2, "it waits")
                await asyncio.to_thread(end)
                await asyncio.to_thread(own.start)
            await eventually(lambda: sessions(own, "alice") == 2, "it waits again")
            own.meshctl("send", "alice", "hello")
            assert data(await waiting)["message"]["text"] == "hello"


async def test_what_is_sent_while_the_daemon_dies_arrives_once(own: Home, transport: str) -> None:
    own.start()
    own.meshctl("register", "bob")
    texts = [str(k) for k in range(60)]

    async def murder() -> None:
        for _ in range(2):
            await asyncio.sleep(0)
            await asyncio.to_thread(own.kill)
            await asyncio.to_thread(own.start)

    with serving(own) as http:
        async with connected(http, transport, "alice") as alice:
            murdering = asyncio.create_task(murder())
            for word in texts:
                data(await alice.call_tool("mesh_send", {"to": "bob", "message": word}))
            await murdering
        wait_until(lambda: unread(own, "bob") == texts, "all, once, in order")


def test_a_daemon_that_stays_away_is_said_to(own: Home) -> None:
    own.start()
    with serving(own) as http, Raw(http, "alice") as raw:
        own.kill()
        result = raw.call("mesh_inbox")
        assert result["isError"]
        assert result["content"][0]["text"] == "meshd is not running\nNext: Tell your user to type: meshctl up"
        assert raw.call("mesh_who")["isError"], "and the next one is told at once"
        assert httpx2.get(f"{http.url}/health").status_code == 503
        with Raw(http, "bob") as late:
            assert "nobody yet: meshd does not answer;" in late.instructions
            own.start()
            assert late.call("mesh_send", to="alice", message="here again")["structuredContent"]["ok"]
            assert sessions(own, "bob") == 1
        wait_until(lambda: raw.texts() == ["here again"], "it goes on as alice")


def test_a_daemon_that_does_not_answer_is_not_healthy(own: Home) -> None:
    daemon = own.start()
    with serving(own) as http:
        daemon.send_signal(signal.SIGSTOP)
        assert httpx2.get(f"{http.url}/health").status_code == 503
        daemon.send_signal(signal.SIGCONT)
        wait_until(lambda: httpx2.get(f"{http.url}/health").status_code == 200, "it is well again")


def test_health_follows_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    store = Store(program("valkey"), folder)
    try:
        with a_home(tmp_path / "home", store.url) as home, serving(home) as http, Raw(http, "alice") as raw:
            url = f"{http.url}/health"
            store.kill()
            wait_until(lambda: httpx2.get(url).json()["store"] == "down", "health says that the store is away")
            assert httpx2.get(url).status_code == 503
            assert "\nmesh_store_up 0\n" in httpx2.get(f"{http.url}/metrics").text
            result = raw.call("mesh_send", to="alice", message="x")
            assert result["isError"]
            assert "Nothing was sent" in result["content"][0]["text"]
            store.start()
            wait_until(lambda: httpx2.get(url).status_code == 200, "the store is back")
    finally:
        store.close()


async def test_what_it_held_is_free_when_it_dies(own: Home) -> None:
    own.start()
    http_name, kept = "alice", "bob"
    with serving(own) as outer:
        async with connected(outer, HANDSHAKE, kept):
            http = own.begin("serve", "--http", "--port", "0")
            assert http.stdout is not None
            url = http.stdout.readline().removeprefix("MCP on ").strip()
            body = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
            params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": ""}}
            headers = {"Accept": "application/json, text/event-stream", "Agent-Mesh-Name": http_name}
            httpx2.post(url, json=body | {"params": params}, headers=headers)
            assert sessions(own, http_name) == 1
            os.kill(http.pid, signal.SIGKILL)
            http.communicate()
            await eventually(lambda: sessions(own, http_name) == 0, "it is free")
            assert sessions(own, kept) == 1


async def test_two_servers_share_a_daemon(own: Home) -> None:
    with serving(own) as one, serving(own) as two:
        async with connected(one, HANDSHAKE, "alice") as alice, connected(two, HANDSHAKE, "alice") as other:
            assert "alice-2" in (other.instructions or "")
            result = await alice.call_tool("mesh_who", {})
            assert "alice-2" in text(result)
