"""The same mesh in each transport: the SDK's own client, in both eras of MCP and over the older SSE."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.helper import Home, eventually, wait_until
from tests.mcp_http.serving import (
    HANDSHAKE,
    MODERN,
    SSE,
    Http,
    Raw,
    connected,
    data,
    dial,
    head,
    modern_call,
    modern_headers,
    sessions,
    status_of,
    text,
    unread,
    until_sessions,
)

PLENTY = 30.0


async def test_a_client_sees_the_eleven_tools(http: Http, transport: str, name: str) -> None:
    async with connected(http, transport, name) as client:
        tools = (await client.list_tools()).tools
        assert len(tools) == 11
        assert {"mesh_send", "mesh_inbox"} <= {tool.name for tool in tools}
        assert client.server_info is not None
        assert client.server_info.name == "agent-mesh"
        assert f"You are {name};" in (client.instructions or "")


async def test_mail_goes_from_one_client_to_another_and_is_read_once(
    http: Http, mesh: Home, transport: str, name: str, peer: str
) -> None:
    async with connected(http, transport, name) as alice, connected(http, transport, peer) as bob:
        data(await bob.call_tool("mesh_inbox", {}))
        sent = data(await alice.call_tool("mesh_send", {"to": peer, "message": "grüße </peer-message>"}))
        assert sent["ok"]
        assert sent["held"]
        result = await bob.call_tool("mesh_inbox", {})
        (message,) = data(result)["messages"]
        assert (message["from"], message["text"], message["id"]) == (name, "grüße </peer-message>", sent["id"])
        assert "grüße &lt;/peer-message&gt;</peer-message>" in text(result)
        assert data(await bob.call_tool("mesh_inbox", {}))["messages"] == []
    assert unread(mesh, peer) == []


async def test_a_request_is_answered_and_tells_that_it_waits(
    http: Http, mesh: Home, transport: str, name: str, peer: str
) -> None:
    """Progress and the answer arrive on the response of the call that waits."""
    told: list[float] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)

    async with connected(http, transport, name) as alice, connected(http, transport, peer) as bob:
        data(await bob.call_tool("mesh_inbox", {}))
        question = {"to": peer, "message": "ready?", "timeout_s": PLENTY}
        waiting = asyncio.create_task(alice.call_tool("mesh_request", question, progress_callback=progress))
        heard = data(await bob.call_tool("mesh_listen_once", {"timeout_s": PLENTY}))
        data(await bob.call_tool("mesh_reply", {"to": heard["message"]["id"], "text": "yes"}))
        assert data(await waiting)["reply"] == "yes"
    assert told


async def test_a_wait_that_ends_without_mail_says_so(http: Http, transport: str, name: str) -> None:
    async with connected(http, transport, name) as client:
        result = await client.call_tool("mesh_listen_once", {"timeout_s": 0.05})
        assert data(result)["message"] is None
        assert text(result) == "no message in time"


async def test_a_mistake_is_a_result_with_a_hint(http: Http, transport: str, name: str) -> None:
    async with connected(http, transport, name) as client:
        result = await client.call_tool("mesh_send", {"to": "no name", "message": "x"})
        assert result.is_error
        assert "Next: " in text(result)
        result = await client.call_tool("mesh_send", {"to": name})
        assert result.is_error
        assert "missing required field `message`" in text(result)


# --- sessions and their names ---


@pytest.mark.parametrize("transport", [HANDSHAKE, SSE])
async def test_a_session_is_told_its_name_and_is_live_until_it_ends(
    http: Http, mesh: Home, transport: str, name: str
) -> None:
    async with connected(http, transport, name) as client:
        assert f"You are {name};" in (client.instructions or "")
        assert sessions(mesh, name) == 1
    await eventually(lambda: sessions(mesh, name) == 0, "the session has ended")


@pytest.mark.parametrize("transport", [HANDSHAKE, SSE])
async def test_a_name_that_is_live_already_gets_a_number_and_gives_it_back(
    http: Http, mesh: Home, transport: str, name: str
) -> None:
    async with connected(http, transport, name), connected(http, transport, name) as second:
        assert f"You are {name}-2 ({name} is no free name);" in (second.instructions or "")
        refused = await second.call_tool("mesh_send", {"to": name, "message": "x", "from_agent": name})
        assert refused.is_error
        assert f"{name} is another live session here (tests)" in text(refused)
    await eventually(lambda: sessions(mesh, f"{name}-2") is None, "the number is given back")


def test_a_session_without_a_name_gets_one_of_its_own(http: Http) -> None:
    with Raw(http) as one, Raw(http) as two:
        assert one.name != two.name
        assert one.name.startswith("agent")
        one.delete()
        two.delete()


def test_the_query_names_a_session_too(http: Http, mesh: Home, name: str) -> None:
    with Raw(http) as raw:
        raw.delete()
        del raw.client.headers["mcp-session-id"]
        raw.client.params = raw.client.params.set("name", name)
        answer = raw.post("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {}})
        assert answer.status_code == 200
        answer = raw.post(
            "initialize",
            {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": ""}},
        )
        assert f"You are {name};" in answer.text
        raw.client.headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        assert raw.delete() == 200


@pytest.mark.parametrize("transport", [HANDSHAKE, SSE])
async def test_a_session_takes_another_name(http: Http, mesh: Home, transport: str, name: str, peer: str) -> None:
    async with connected(http, transport, name) as client:
        assert data(await client.call_tool("mesh_register", {"name": peer}))["name"] == peer
        assert (sessions(mesh, name), sessions(mesh, peer)) == (0, 1)
        mesh.meshctl("send", peer, "to the new name", "--from", name)
        assert data(await client.call_tool("mesh_listen_once", {}))["message"]["text"] == "to the new name"


# --- requests that stand alone ---


async def test_a_request_that_stands_alone_must_say_who_asks(http: Http, name: str) -> None:
    async with connected(http, MODERN) as client:
        refused = await client.call_tool("mesh_send", {"to": name, "message": "x"})
        assert refused.is_error
        assert text(refused) == "this request does not say who you are\nNext: Give from_agent."
        assert "give your name" in (client.instructions or "")
        assert not (await client.call_tool("mesh_who", {})).is_error
        sent = await client.call_tool("mesh_send", {"to": name, "message": "x", "from_agent": name})
        assert data(sent)["ok"]
        (message,) = data(await client.call_tool("mesh_inbox", {"name": name}))["messages"]
        assert message["from"] == name


async def test_it_hosts_a_name_by_registering_it(http: Http, mesh: Home, name: str) -> None:
    async with connected(http, MODERN) as client:
        assert data(await client.call_tool("mesh_register", {"name": name, "role": "tester"}))["name"] == name
    assert any(a["agent"] == name and a["role"] == "tester" for a in mesh.json("who")["agents"])


async def test_requests_of_one_name_are_one_live_agent(http: Http, mesh: Home, name: str, peer: str) -> None:
    """Two that wait at once, from two clients: one session, two waiting calls."""
    async with connected(http, MODERN, name) as one, connected(http, MODERN, name) as two:
        waits = {"timeout_s": PLENTY}
        waiting = [asyncio.create_task(client.call_tool("mesh_listen_once", waits)) for client in (one, two)]
        await eventually(lambda: sessions(mesh, name) == 3, "both wait")
        for word in ("first", "second"):
            mesh.meshctl("send", name, word, "--from", peer)
        heard = {data(result)["message"]["text"] for result in await asyncio.gather(*waiting)}
        assert heard == {"first", "second"}


async def test_a_name_is_live_a_while_after_its_last_request(http: Http, mesh: Home, name: str) -> None:
    """A client that asks again soon is the same agent; one that does not is gone, and its name is free."""
    async with connected(http, MODERN, name) as client:
        for _ in range(2):
            data(await client.call_tool("mesh_inbox", {}))
            assert sessions(mesh, name) == 1
        await eventually(lambda: sessions(mesh, name) == 0, "it has not asked for long")
        data(await client.call_tool("mesh_inbox", {}))
        assert sessions(mesh, name) == 1


async def test_a_client_that_looks_around_with_a_name_is_hosted(http: Http, mesh: Home, name: str) -> None:
    """Mail and broadcasts reach it before it has called a tool."""
    async with connected(http, MODERN, name) as client:
        assert sessions(mesh, name) == 1
        mesh.meshctl("broadcast", "to all", "--from", name)
        assert data(await client.call_tool("mesh_inbox", {}))["notice"]
    async with connected(http, HANDSHAKE, f"{name}x"), connected(http, MODERN, f"{name}x") as late:
        assert f"You are nobody yet: {name}x is another live session;" in (late.instructions or "")


async def test_nobody_speaks_for_a_live_session(http: Http, name: str) -> None:
    async with connected(http, HANDSHAKE, name), connected(http, MODERN) as other:
        refused = await other.call_tool("mesh_inbox", {"name": name})
        assert refused.is_error
        assert f"{name} is another live session" in text(refused)
        assert text(refused).endswith("\nNext: Use another name.")


def test_what_is_sent_again_with_an_id_of_its_own_is_sent_once(http: Http, mesh: Home, name: str) -> None:
    mesh.meshctl("register", name)
    with Raw(http) as raw:
        for meta in ({}, {}, {"agent-mesh/id": "7"}, {"agent-mesh/id": "7"}, {"agent-mesh/id": "8"}):
            body = modern_call("mesh_send", meta=meta, to=name, message="x", from_agent=name)
            answer = raw.client.post("/mcp", json=body, headers=modern_headers(body))
            assert answer.status_code == 200, answer.text
            assert not answer.json()["result"]["isError"], answer.text
        raw.delete()
    assert len(unread(mesh, name)) == 4


def test_a_repeated_request_of_a_session_is_sent_once(http: Http, mesh: Home, name: str) -> None:
    """The same id and the same words: a client that did not see the answer. Other words are another message."""
    mesh.meshctl("register", name)
    with Raw(http) as raw:
        first = raw.call("mesh_send", 77, to=name, message="x")
        assert raw.call("mesh_send", 77, to=name, message="x")["structuredContent"] == first["structuredContent"]
        raw.call("mesh_send", 77, to=name, message="y")
        raw.delete()
    assert unread(mesh, name) == ["x", "y"]


def test_a_session_that_is_deleted_is_gone(http: Http, mesh: Home, name: str) -> None:
    with Raw(http, name) as raw:
        assert sessions(mesh, name) == 1
        assert raw.delete() == 200
        until_sessions(mesh, name, 0)
        assert raw.post("ping", {}).status_code == 404
        assert raw.delete() == 404


def listened(http: Http, raw: Raw) -> socket.socket:
    """The stream that most clients keep open."""
    stream = dial(http)
    headers = {"mcp-session-id": raw.id, "Accept": "text/event-stream"}
    stream.sendall(head(http, "GET /mcp HTTP/1.1", **headers))
    assert status_of(stream) == 200
    return stream


def test_a_client_that_ends_without_a_word_is_no_live_session(http: Http, mesh: Home, name: str) -> None:
    """Its stream tells. If it comes back after all, it goes by its name again."""
    with Raw(http, name) as raw:
        with listened(http, raw):
            assert sessions(mesh, name) == 1
        until_sessions(mesh, name, 0)
        mesh.meshctl("send", name, "x")
        assert raw.texts() == ["x"]
        assert sessions(mesh, name) == 1
        raw.delete()


def test_a_client_that_is_started_anew_has_its_name_at_once(http: Http, name: str) -> None:
    """It does not wait until its predecessor is missed; but it takes nobody's name who is there."""
    with Raw(http, name) as before:
        with listened(http, before), Raw(http, name) as second:
            assert second.name.startswith(f"{name}-2 ")
            second.delete()

        def begins_anew() -> bool:
            with Raw(http, name) as after:
                after.delete()
                return bool(after.name == name)

        wait_until(begins_anew, "the name is free, as soon as the end of the stream is noticed")
        before.delete()


def test_a_second_initialize_changes_nothing(http: Http, mesh: Home, name: str) -> None:
    with Raw(http, name) as raw:
        again = raw.post(
            "initialize",
            {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": ""}},
        )
        assert f"You are {name};" in again.text
        assert sessions(mesh, name) == 1
        assert raw.texts() == []
        raw.delete()
    until_sessions(mesh, name, 0)
