"""The server's end: soon, with code 0, and with an answer for whoever waits."""

from __future__ import annotations

import contextlib
import signal

import pytest

from tests.helper import Home
from tests.mcp_http.serving import (
    Http,
    Raw,
    Stream,
    dial,
    head,
    modern_call,
    modern_headers,
    request,
    sessions,
    unread,
    until_sessions,
)

SOON = 15.0  # what is open waits four times as long; how busy this machine is with other things is not what is tested
LONG = 60.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_soon_whatever_is_open(mesh: Home, name: str, peer: str, number: int) -> None:
    """Streams, sessions, waiting calls in every transport, half a request, and a client that says nothing."""
    http = Http(mesh)
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(Raw(http, name))
        own = stack.enter_context(dial(http))
        headers = {"mcp-session-id": raw.id, "Accept": "text/event-stream"}
        own.sendall(head(http, "GET /mcp HTTP/1.1", **headers))
        handshake = stack.enter_context(raw.begin("mesh_listen_once", timeout_s=LONG))
        body = modern_call("mesh_listen_once", name=peer, timeout_s=LONG)
        modern = stack.enter_context(request(http, body, 0, **modern_headers(body)))
        sse = Stream(http, f"{name}-sse")
        stack.callback(sse.close)
        sse.post("tools/call", 2, name="mesh_listen_once", arguments={"timeout_s": LONG})
        stack.enter_context(dial(http))
        half = stack.enter_context(dial(http))
        half.sendall(head(http, **{"Content-Length": "1000"}))
        for waiting in (name, peer, f"{name}-sse"):
            until_sessions(mesh, waiting, 2)
        code, took, out, err = http.end(number)
        assert (code, out, err) == (0, "", "")
        assert took < SOON
        said = b"this HTTP server was stopped before the call was answered"
        assert said in handshake.makefile("rb").read()
        assert said in modern.makefile("rb").read()
        assert said.decode() in sse.read()["result"]["content"][0]["text"]
    for waiting in (name, peer, f"{name}-sse"):
        until_sessions(mesh, waiting, 0)
        mesh.meshctl("send", waiting, "later")
        assert unread(mesh, waiting) == ["later"]


def test_a_second_signal_does_no_harm(mesh: Home, name: str) -> None:
    http = Http(mesh)
    with Raw(http, name) as raw, raw.begin("mesh_listen_once", timeout_s=LONG):
        until_sessions(mesh, name, 2)
        http.process.send_signal(signal.SIGTERM)
        code, took, _, err = http.end(signal.SIGINT)
        assert (code, err) == (0, "")
        assert took < SOON
    until_sessions(mesh, name, 0)


def test_it_says_where_it_is_and_nothing_else(mesh: Home, name: str) -> None:
    """One line on standard output; no log of who asked for what."""
    http = Http(mesh)
    assert http.said == f"MCP on http://127.0.0.1:{http.port}/mcp\n"
    with Raw(http, name) as raw:
        raw.call("mesh_send", to="no name", message="x")
        assert sessions(mesh, name) == 1
    assert http.end()[2:] == ("", "")
