"""What no good client sends: each piece has its answer, and nobody else notices."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.helper import Home, wait_until
from tests.mcp_http.serving import (
    ACCEPT,
    INITIALIZE,
    Http,
    Raw,
    Stream,
    dial,
    head,
    modern,
    modern_call,
    modern_headers,
    parsed,
    request,
    serving,
    sessions,
    status_of,
    until_sessions,
)

LONG = 60.0
LIMIT = (1 << 20) - 4096


@pytest.fixture
def raw(http: Http, name: str) -> Iterator[Raw]:
    """Somebody else's session, which works before and after."""
    with Raw(http, name) as session:
        session.call("mesh_inbox")
        yield session
        assert session.texts() == []
        session.delete()


# The SDK takes this for a notification where there is a session.
WRONG_ID = b'{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}'
GARBAGE = [
    b"",
    b"\x00\xff\xfe",
    b"not json",
    b"{",
    b"null",
    b"42",
    b"[]",
    b'"text"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1}',
    WRONG_ID,
    b'{"jsonrpc":"2.0","id":1,"method":5}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":7}',
    b'{"jsonrpc":"2.0","id":' + b"9" * 10_000 + b',"method":"ping"}',
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]',
    b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
]


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_a_body_that_is_no_request_is_refused(http: Http, raw: Raw, body: bytes) -> None:
    """In a session, outside of one, as a request that stands alone, and over the older transport."""
    typed = {"Content-Type": "application/json", "Accept": ACCEPT}
    for headers in ({"mcp-session-id": raw.id}, {}, {"mcp-protocol-version": "2026-07-28", "mcp-method": "ping"}):
        answer = httpx2.post(f"{http.url}/mcp", content=body, headers=typed | headers)
        if answer.status_code != 202 or body != WRONG_ID:
            assert answer.status_code == 400, answer.text
            assert "error" in answer.json()
    stream = Stream(http, f"{raw.name}-sse")
    assert httpx2.post(http.url + stream.endpoint, content=body, headers=typed).status_code in (202, 400)
    assert stream.post("ping", 5) == 202
    assert stream.read()["id"] == 5
    stream.close()


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "in chunks"])
@pytest.mark.parametrize("path", ["/mcp", "/messages/?session_id=00000000000000000000000000000000"])
def test_a_huge_body_is_refused_before_it_is_read(http: Http, raw: Raw, path: str, *, declared: bool) -> None:
    with dial(http) as connection:
        first = f"POST {path} HTTP/1.1"
        if declared:
            connection.sendall(head(http, first, **{"Content-Length": str(1 << 40)}))
        else:
            connection.sendall(head(http, first, **{"Transfer-Encoding": "chunked"}))
            piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            for _ in range(LIMIT // 0x10000 + 1):
                connection.sendall(piece)
        assert status_of(connection) == 413


def test_the_largest_body_goes_through_whole(http: Http, raw: Raw) -> None:
    """It is as large as the daemon takes: the call is refused by the rule for messages, and the session lives."""
    empty = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "mesh_send", "arguments": {}}}
    arguments: dict[str, Any] = empty["params"]["arguments"]  # type: ignore[index]
    arguments |= {"to": raw.name, "message": ""}
    arguments["message"] = "\u0001" * ((LIMIT - len(json.dumps(empty))) // 6)
    with request(http, empty, 0, **{"mcp-session-id": raw.id}) as connection:
        assert status_of(connection) == 200
    result = raw.call("mesh_send", to=raw.name, message=arguments["message"])
    assert result["isError"]
    assert "over the limit of 65536" in result["content"][0]["text"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/mcp", 405),
        ("PATCH", "/mcp", 405),
        ("OPTIONS", "/mcp", 405),
        ("DELETE", "/mcp", 400),
        ("GET", "/mcp", 400),
        ("POST", "/sse", 405),
        ("HEAD", "/sse", 405),
        ("GET", "/messages/", 405),
        ("POST", "/messages/", 400),
        ("POST", "/health", 405),
        ("DELETE", "/metrics", 405),
        ("GET", "/", 404),
        ("GET", "/../etc/passwd", 404),
    ],
)
def test_a_wrong_method_or_path_is_said_to(http: Http, method: str, path: str, status: int) -> None:
    headers = {"Accept": ACCEPT, "Content-Type": "application/json"}
    assert httpx2.request(method, http.url + path, headers=headers).status_code == status


@pytest.mark.parametrize("session", ["0" * 32, "no such", "x" * 5000])
def test_a_session_that_is_none_is_not_found(http: Http, session: str) -> None:
    headers = {"Accept": ACCEPT, "mcp-session-id": session}
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert httpx2.post(f"{http.url}/mcp", json=body, headers=headers).status_code == 404
    assert httpx2.get(f"{http.url}/mcp", headers=headers).status_code == 404
    assert httpx2.delete(f"{http.url}/mcp", headers=headers).status_code == 404
    answer = httpx2.post(f"{http.url}/messages/", params={"session_id": session}, json=body)
    assert answer.status_code == (404 if session == "0" * 32 else 400)


def test_what_comes_before_initialize_is_refused(http: Http) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert httpx2.post(f"{http.url}/mcp", json=body, headers={"Accept": ACCEPT}).status_code == 400


def test_a_client_that_takes_no_sse_is_told(http: Http) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
    assert httpx2.post(f"{http.url}/mcp", json=body, headers={"Accept": "text/html"}).status_code == 406


def test_a_version_that_nobody_knows_is_refused(http: Http, raw: Raw) -> None:
    body = modern("tools/list")
    headers = modern_headers(body) | {"mcp-protocol-version": "2099-01-01", "Accept": ACCEPT}
    answer = httpx2.post(f"{http.url}/mcp", json=body, headers=headers)
    assert answer.status_code == 400
    assert "error" in answer.json()


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": "\ud800", "message": "x"},
        {"to": "bob", "message": "\udcff"},
        {"to": "bob", "message": "x", "within_s": float("nan")},
        {"to": "bob", "message": "x", "within_s": 1e308},
        {"to": "bob", "message": "x", "within_s": -1},
        {"to": "bob", "message": "x", "private": "yes"},
        {"to": "bob", "message": "x", "unknown": 1},
        {"to": "bob", "message": "x", "\ud800": 1},
        {"to": "bob", "message": "x", "within_s": 10**400},
        {"to": ["bob"], "message": "x"},
        {"to": "../../etc", "message": "x"},
        {"to": "bob", "message": ""},
    ],
    ids=range(12),
)
def test_arguments_that_make_no_sense_are_refused(http: Http, raw: Raw, arguments: dict[str, Any]) -> None:
    """As a tool's result with a hint, or as an error of JSON-RPC; as themselves or escaped, in both eras."""
    given = {"expect_reply": True, "from_agent": raw.name} | arguments
    old = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "mesh_send", "arguments": given}}
    new = modern_call("mesh_send", **given)
    answers = [
        httpx2.post(f"{http.url}/mcp", content=json.dumps(body), headers=headers | typed)
        for typed in [{"Content-Type": "application/json", "Accept": ACCEPT}]
        for body, headers in ((old, {"mcp-session-id": raw.id}), (new, modern_headers(new)))
    ]
    for answer in answers:
        assert answer.status_code in (200, 400), answer.text
        message = parsed(answer)
        assert "error" in message or message["result"]["isError"], message


@pytest.mark.parametrize("method", ["resources/list", "prompts/get", "logging/setLevel", "completion/complete", "nope"])
def test_a_method_that_we_do_not_have_is_not_found(raw: Raw, method: str) -> None:
    assert parsed(raw.post(method, {}))["error"]["code"] in (-32601, -32602)


def test_an_unknown_tool_is_named_with_those_there_are(raw: Raw) -> None:
    result = raw.call("mesh_launch_missiles<b>")
    assert result["isError"]
    assert "&lt;b&gt;" in result["content"][0]["text"]
    assert "mesh_send" in result["content"][0]["text"]


# --- connections ---


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=range(9),
)
def test_what_is_no_http_ends_its_own_connection_only(http: Http, raw: Raw, sent: bytes) -> None:
    with dial(http) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").readline()
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))


def test_half_a_request_waits_alone(http: Http, raw: Raw) -> None:
    """Clients that do not come to the end of what they want to say, and then go."""
    halves = [dial(http) for _ in range(50)]
    for k, half in enumerate(halves):
        half.sendall(head(http, **{"Content-Length": "1000"})[: 30 if k % 2 else None] + (b"" if k % 2 else b"{"))
    assert raw.call("mesh_who")["isError"] is False
    for half in halves:
        half.close()


def test_requests_in_one_piece_are_answered_in_their_order(http: Http, raw: Raw) -> None:
    """Pipelining."""
    with dial(http) as connection:
        connection.sendall(head(http, "GET /health HTTP/1.1") * 5)
        answers = connection.makefile("rb")
        for _ in range(5):
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length"):
                    length = int(line.split(b":")[1])
            assert json.loads(answers.read(length))["ok"]


def test_an_old_event_that_is_asked_for_gives_a_new_stream(http: Http, raw: Raw) -> None:
    with dial(http) as connection:
        headers = {"mcp-session-id": raw.id, "Last-Event-ID": "17", "Accept": "text/event-stream"}
        connection.sendall(head(http, "GET /mcp HTTP/1.1", **headers))
        assert status_of(connection) == 200
    with dial(http) as connection:
        wait_until(lambda: httpx2.get(f"{http.url}/health").status_code == 200, "it serves on")


def test_a_session_has_one_stream_of_its_own(http: Http, raw: Raw) -> None:
    headers = {"mcp-session-id": raw.id, "Accept": "text/event-stream"}
    with dial(http) as first, dial(http) as second:
        first.sendall(head(http, "GET /mcp HTTP/1.1", **headers))
        assert status_of(first) == 200
        second.sendall(head(http, "GET /mcp HTTP/1.1", **headers))
        assert status_of(second) == 409


# --- many ---


def test_a_hundred_calls_wait_at_once(http: Http, mesh: Home, name: str, peer: str) -> None:
    """Each gets one message of its own, and whoever else asks is answered meanwhile."""
    with Raw(http, name) as raw, Raw(http, peer) as other:
        waiting = [raw.begin("mesh_listen_once", timeout_s=LONG) for _ in range(100)]
        until_sessions(mesh, name, 101)
        assert other.call("mesh_ping", agent=name)["structuredContent"]["ok"]
        with mesh.rpc() as rpc:
            for k in range(100):
                rpc.call("send", target=name, message=str(k), from_=peer)
        heard = []
        for connection in waiting:
            with connection, connection.makefile("rb") as lines:
                line = next(line for line in lines if line.startswith(b"data: {"))
                heard.append(json.loads(line[6:])["result"]["structuredContent"]["message"]["text"])
        assert sorted(heard, key=int) == [str(k) for k in range(100)]
        wait_until(lambda: raw.texts() == [], "all are read")
        raw.delete()
        other.delete()


def test_a_hundred_waiting_calls_end_with_their_clients(http: Http, mesh: Home, name: str) -> None:
    with Raw(http, name) as raw:
        waiting = [raw.begin("mesh_listen_once", timeout_s=LONG) for _ in range(100)]
        until_sessions(mesh, name, 101)
        for connection in waiting:
            connection.close()
        until_sessions(mesh, name, 1)
        mesh.meshctl("send", name, "still there")
        assert raw.texts() == ["still there"]
        raw.delete()


def test_sessions_that_come_and_go_leave_nothing(http: Http, mesh: Home, name: str) -> None:
    def life(k: int) -> None:
        with Raw(http, f"{name}{k % 5}") as raw:
            raw.call("mesh_inbox")
            assert raw.delete() == 200

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(life, range(50)))
    for k in range(5):
        until_sessions(mesh, f"{name}{k}", 0)
    with mesh.rpc() as rpc:
        left = [agent["name"] for agent in rpc.call("status")["agents"] if agent["name"].startswith(f"{name}")]
    wait_until(lambda: [n for n in left if sessions(mesh, n)] == [], "no numbers stay")


def test_an_id_that_two_calls_share_loses_no_mail(mesh: Home, name: str) -> None:
    """A client may not do this. It may get what it likes, but what it was not given stays unread."""
    # The SDK loses sight of the first call's stream, and leaves it to the garbage collector.
    with serving(mesh, PYTHONWARNINGS="default,ignore::ResourceWarning") as http, Raw(http, name) as raw:
        waiting = []
        for _ in range(2):
            waiting.append(raw.begin("mesh_listen_once", timeout_s=LONG))
            raw.last -= 1
        until_sessions(mesh, name, 3)
        mesh.meshctl("send", name, "one")
        mesh.meshctl("send", name, "two")
        given = b""
        for connection in waiting:
            connection.settimeout(0.5)
            with connection:
                try:
                    while piece := connection.recv(1 << 16):
                        given += piece
                except TimeoutError:
                    pass
        until_sessions(mesh, name, 1)
        seen = {text for text in ("one", "two") if f'"text":"{text}"'.encode() in given}
        left = raw.texts()
        assert seen | set(left) == {"one", "two"}
        raw.delete()
