"""Who may come in: addresses, names of hosts, pages, tokens."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx2
import pytest

from tests.helper import Home
from tests.mcp_http.serving import (
    ACCEPT,
    HANDSHAKE,
    INITIALIZE,
    MODERN,
    Http,
    connected,
    data,
    dial,
    head,
    serving,
    status_of,
)

TOKEN = "correct-horse-battery-staple"
PATHS = ["/mcp", "/sse", "/messages/", "/health", "/metrics", "/nothing"]


def get(http: Http, path: str, **headers: str) -> httpx2.Response:
    return httpx2.get(http.url + path, headers={"Accept": ACCEPT} | headers)


# --- names and pages ---


@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_is_not_ours_leads_nowhere(http: Http, path: str) -> None:
    """DNS rebinding: the name is an attacker's, the address is ours."""
    for host in ("evil.example", f"evil.example:{http.port}", "127.0.0.1.evil.example:80", "127.0.0.1:80@evil", ""):
        assert get(http, path, Host=host).status_code in (400, 421), host
    with dial(http) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert b" 421 " in connection.makefile("rb").readline()


@pytest.mark.parametrize("path", PATHS)
def test_a_page_of_another_server_gets_nothing(http: Http, path: str) -> None:
    for origin in ("https://evil.example", f"http://evil.example:{http.port}", "null", "http://localhost.evil.example"):
        assert get(http, path, Origin=origin).status_code == 403, origin


def test_what_is_ours_comes_in(http: Http) -> None:
    for host in (f"localhost:{http.port}", "127.0.0.1", "localhost:9000", f"[::1]:{http.port}"):
        assert get(http, "/health", Host=host).status_code == 200, host
    for origin in ("http://localhost:6274", f"http://127.0.0.1:{http.port}"):
        assert get(http, "/health", Origin=origin).status_code == 200, origin


def test_other_names_can_be_allowed(mesh: Home) -> None:
    with serving(mesh, AGENT_MESH_HTTP_HOSTS="box.example, other") as http:
        assert get(http, "/health", Host="box.example:8765").status_code == 200
        assert get(http, "/health", Host="other", Origin="https://other").status_code == 200
        assert get(http, "/health", Host="third").status_code == 421


def test_no_page_is_told_that_it_may_read(http: Http) -> None:
    preflight = httpx2.options(f"{http.url}/mcp", headers={"Origin": "http://localhost:1", "Accept": ACCEPT})
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


# --- tokens ---


@pytest.fixture(scope="module")
def guarded(mesh: Home) -> object:
    with serving(mesh, AGENT_MESH_HTTP_TOKEN=TOKEN) as http:
        yield http


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/health"])
def test_without_the_token_nothing_is_answered(guarded: Http, path: str) -> None:
    """On loopback, too: it was asked for."""
    shown = ("", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", f"Basic {TOKEN}")
    for value in shown:
        answer = get(guarded, path, **({"Authorization": value} if value else {}))
        assert answer.status_code == 401, value
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text
    with dial(guarded) as connection:
        connection.sendall(head(guarded, f"GET {path} HTTP/1.1", Authorization="Bearer \xe9\xff"))
        assert status_of(connection) == 401


def test_health_needs_no_token(guarded: Http) -> None:
    assert get(guarded, "/health").status_code == 200
    assert get(guarded, "/health", Host="evil.example").status_code == 421


async def test_with_the_token_all_is_well(guarded: Http, transport: str, name: str) -> None:
    async with connected(guarded, transport, name, Authorization=f"Bearer {TOKEN}") as client:
        assert data(await client.call_tool("mesh_send", {"to": name, "message": "x"}))["ok"]
    assert get(guarded, "/metrics", Authorization=f"bearer {TOKEN}").status_code == 200


def test_the_token_is_seen_nowhere(guarded: Http) -> None:
    arguments = Path(f"/proc/{guarded.process.pid}/cmdline").read_bytes()
    assert TOKEN.encode() not in arguments
    assert TOKEN not in guarded.said


# --- addresses ---


def refused(home: Home, *arguments: str, **variables: str) -> tuple[int, str]:
    done = home.run("serve", "--http", "--port", "0", *arguments, **variables)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_others_reach_needs_a_token(lone: Home, host: str) -> None:
    code, said = refused(lone, "--host", host)
    assert code == 2
    assert f"other machines can reach {host}" in said
    assert "next: write a long random token into a file and set AGENT_MESH_HTTP_TOKEN_FILE" in said
    assert refused(lone, "--host", host, AGENT_MESH_HTTP_TOKEN="")[0] == 2
    assert lone.run("status").returncode == 3, "nothing was started"


def test_with_a_token_it_listens_on_any_address(mesh: Home, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with serving(mesh, "--host", "0.0.0.0", AGENT_MESH_HTTP_TOKEN_FILE=str(file)) as http:
        assert http.url == f"http://0.0.0.0:{http.port}"
        url = f"http://127.0.0.1:{http.port}"
        assert httpx2.get(f"{url}/metrics").status_code == 401
        assert httpx2.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_loopback_has_many_names(mesh: Home, host: str) -> None:
    with serving(mesh, "--host", host) as http:
        assert httpx2.get(f"{http.url}/health").status_code == 200
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
        assert httpx2.post(f"{http.url}/mcp", json=body, headers={"Accept": ACCEPT}).status_code == 200


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AGENT_MESH_HTTP_TOKEN_FILE": "/nowhere/token"}, "cannot read the token from /nowhere/token"),
        ({"AGENT_MESH_HTTP_TOKEN_FILE": "/dev/null"}, "/dev/null is empty"),
        ({"AGENT_MESH_HTTP_TOKEN": "two words"}, "the token in AGENT_MESH_HTTP_TOKEN cannot stand in a header"),
        ({"AGENT_MESH_HTTP_TOKEN": "schlüssel"}, "the token in AGENT_MESH_HTTP_TOKEN cannot stand in a header"),
    ],
)
def test_a_token_that_is_none_is_said_to(lone: Home, variables: dict[str, str], said: str) -> None:
    code, shown = refused(lone, **variables)
    assert code == 2
    assert said in shown
    assert "schlüssel" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "no.such.host.invalid"], "no address belongs to 'no.such.host.invalid'"),
        (["--host", ""], "no address belongs to ''"),
        (["--host", "a" * 300], "no address belongs to"),
        (["--port", "70000"], "there is no port 70000"),
        (["--port", "-1"], "there is no port -1"),
    ],
)
def test_what_is_no_address_is_said_to(lone: Home, arguments: list[str], said: str) -> None:
    code, shown = refused(lone, *arguments)
    assert code == 2
    assert said in shown


def test_a_port_that_is_taken_is_said_to(lone: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, said = refused(lone, "--port", str(port))
    assert code == 1
    assert said == (
        f"port {port} of 127.0.0.1 is in use\n  next: perhaps it serves already; else: meshctl serve --http --port 0\n"
    )
    assert lone.run("status").returncode == 3, "nothing was started"


async def test_an_agent_s_name_that_is_none_is_refused(http: Http, transport: str) -> None:
    for bad in ("no%20name", "x" * 65, "%0a"):
        assert get(http, f"/{'sse' if transport == 'sse' else 'mcp'}?name={bad}").status_code == 400
    assert get(http, "/sse", **{"Agent-Mesh-Name": "no name"}).status_code == 400
    assert transport in (HANDSHAKE, MODERN, "sse")
