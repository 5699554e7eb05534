"""Mail is read when its response was taken by a client that is there, and unread again in every other case."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.helper import Home, eventually, wait_until
from tests.mcp_http.serving import (
    HANDSHAKE,
    MODERN,
    SSE,
    Http,
    Raw,
    Stream,
    connected,
    data,
    modern_call,
    modern_headers,
    request,
    unread,
    until_sessions,
)

LONG = 60.0
TINY = 2048  # the smallest receive buffer that Linux allows is about this
BIG = "x" * 60_000
BEGIN = b"x" * 100


class Call:
    """A tool call in one of the transports, on a connection that nobody reads from yet."""

    def __init__(self, http: Http, transport: str, name: str, tool: str, buffer: int = 0, **arguments: Any) -> None:
        self._end: Callable[[], object] = lambda: None
        self.socket: socket.socket
        if transport == SSE:
            stream = Stream(http, name, buffer)
            self.socket, self._end = stream.socket, stream.close
            stream.post("tools/call", 2, name=tool, arguments=arguments)
        elif transport == HANDSHAKE:
            raw = Raw(http, name)
            body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call"}
            params = {"name": tool, "arguments": arguments}
            self.socket = request(http, body | {"params": params}, buffer, **{"mcp-session-id": raw.id})
            self._end = raw.client.close
        else:
            body = modern_call(tool, **arguments)
            self.socket = request(http, body, buffer, **modern_headers(body), **{"Agent-Mesh-Name": name})

    def leave(self) -> None:
        self._end()
        self.socket.close()

    def read_until(self, part: bytes) -> None:
        read_until(self.socket, part)


def read_until(connection: socket.socket, part: bytes) -> None:
    """Read little more than up to this part."""
    seen = b""
    while part not in seen:
        piece = connection.recv(512)
        assert piece, seen[-200:]
        seen += piece


def test_mail_in_an_answer_that_was_taken_is_read(http: Http, mesh: Home, transport: str, name: str) -> None:
    mesh.meshctl("register", name)
    mesh.meshctl("send", name, BIG)
    call = Call(http, transport, name, "mesh_inbox")
    call.read_until(b'"lost":0')
    wait_until(lambda: unread(mesh, name) == [], "it is read")
    call.leave()
    assert mesh.json("inbox", name)["messages"] == []


def test_a_client_that_reads_its_answer_and_leaves_at_once_has_read_it(http: Http, mesh: Home, name: str) -> None:
    """As curl does. Nothing comes twice because the connection is gone by the time somebody looks."""
    mesh.meshctl("register", name)
    body = modern_call("mesh_inbox", name=name)
    with mesh.rpc() as rpc:
        for k in range(40):
            rpc.call("send", target=name, message=f"{k} {BIG}", from_="cli")
            with request(http, body, 0, **modern_headers(body)) as connection, connection.makefile("rb") as answer:
                length = 0
                while (line := answer.readline().strip().lower()) != b"":
                    if line.startswith(b"content-length: "):
                        length = int(line.split()[1])
                content = json.loads(answer.read(length))
            (message,) = content["result"]["structuredContent"]["messages"]
            assert message["text"] == f"{k} {BIG}"
    wait_until(lambda: unread(mesh, name) == [], "all are read")


def test_mail_in_an_answer_that_was_not_taken_comes_again(
    http: Http, mesh: Home, transport: str, name: str, peer: str
) -> None:
    """The client asks, stops reading, and goes: its answer lies in the kernel's buffers, and nobody had it."""
    mesh.meshctl("register", name)
    mesh.meshctl("send", name, BIG)
    call = Call(http, transport, name, "mesh_inbox", TINY)
    call.read_until(BEGIN)
    call.leave()
    wait_until(lambda: unread(mesh, name) == [BIG], "it is unread again")


def test_a_slow_client_has_its_mail_when_it_has_read_it(http: Http, mesh: Home, transport: str, name: str) -> None:
    """Nothing is given up because it takes long: in the end it is read, once."""
    mesh.meshctl("register", name)
    mesh.meshctl("send", name, BIG)
    call = Call(http, transport, name, "mesh_inbox", TINY)
    call.read_until(BEGIN)
    mesh.meshctl("send", name, "next")
    assert unread(mesh, name) == [BIG, "next"], "so far it is not read"
    assert [m["text"] for m in mesh.json("inbox", name, "--limit", "1")["messages"]] == ["next"], "nor given again"
    mesh.meshctl("send", name, "next")
    call.read_until(b'"lost":0')
    wait_until(lambda: unread(mesh, name) == ["next"], "only what came later is unread")
    call.leave()


async def test_mail_that_comes_after_progress_is_read(http: Http, mesh: Home, transport: str, name: str) -> None:
    """Its answer is one event of several in a response."""
    told: list[float] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)

    async with connected(http, transport, name) as client:
        arguments = {"timeout_s": LONG}
        waiting = asyncio.create_task(client.call_tool("mesh_listen_once", arguments, progress_callback=progress))
        await eventually(lambda: told, "it says that it waits")
        await asyncio.to_thread(mesh.meshctl, "send", name, "hello")
        assert data(await waiting)["message"]["text"] == "hello"
        await eventually(lambda: unread(mesh, name) == [], "it is read")


def test_a_client_that_leaves_waits_no_more(http: Http, mesh: Home, transport: str, name: str) -> None:
    """The wait ends in the daemon, and the mail that comes afterwards is not spent on it."""
    call = Call(http, transport, name, "mesh_listen_once", timeout_s=LONG)
    until_sessions(mesh, name, 2)  # it lives, and it waits
    call.leave()
    until_sessions(mesh, name, 0 if transport == SSE else 1)
    mesh.meshctl("send", name, "too late")
    assert unread(mesh, name) == ["too late"]


def test_a_wait_that_its_client_cancels_ends(http: Http, mesh: Home, name: str) -> None:
    with Raw(http, name) as raw:
        waiting = raw.begin("mesh_listen_once", timeout_s=LONG)
        until_sessions(mesh, name, 2)
        raw.notify("notifications/cancelled", requestId=raw.last)
        until_sessions(mesh, name, 1)
        read_until(waiting, b'"error"')
        waiting.close()
        mesh.meshctl("send", name, "later")
        assert raw.texts() == ["later"]
        raw.delete()


def test_a_session_that_ends_takes_its_waiting_calls_along(http: Http, mesh: Home, name: str) -> None:
    with Raw(http, name) as raw:
        waiting = raw.begin("mesh_listen_once", timeout_s=LONG)
        until_sessions(mesh, name, 2)
        assert raw.delete() == 200
        until_sessions(mesh, name, 0)
        read_until(waiting, b"\r\n0\r\n\r\n")  # its response has ended
        waiting.close()
    mesh.meshctl("send", name, "later")
    assert unread(mesh, name) == ["later"]


@pytest.mark.parametrize("transport", [HANDSHAKE, MODERN])
def test_the_connection_serves_on_after_mail(http: Http, mesh: Home, transport: str, name: str) -> None:
    """A response with mail in it ends as any other: the next request on its connection is answered."""
    mesh.meshctl("register", name)
    with Raw(http, name if transport == HANDSHAKE else None) as raw:
        for word in ("one", "two", "three"):
            mesh.meshctl("send", name, word)
            if transport == HANDSHAKE:
                assert raw.texts() == [word]
            else:
                body = modern_call("mesh_inbox", name=name)
                answer = raw.client.post("/mcp", json=body, headers=modern_headers(body)).json()
                assert [m["text"] for m in answer["result"]["structuredContent"]["messages"]] == [word]
        raw.delete()
