"""Real `meshctl serve --http` processes, and clients of them: the SDK's, one of plain requests, and bare sockets."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, Implementation

from tests.helper import DEADLINE, Home, wait_until

ACCEPT = "application/json, text/event-stream"
HANDSHAKE, MODERN, SSE = "handshake", "2026-07-28", "sse"
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "raw", "version": "1"},
}


class Http:
    """A server of the home's daemon on a free port. `url` has no path."""

    def __init__(self, home: Home, *arguments: str, **variables: str) -> None:
        self.home = home
        self.process = home.begin("serve", "--http", "--port", "0", *arguments, **variables)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        assert self.said.startswith("MCP on http://"), self.said + self.process.communicate()[1]
        self.url = self.said.removeprefix("MCP on ").strip().removesuffix("/mcp")
        self.port = int(self.url.rpartition(":")[2])

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float, str, str]:
        """Exit code, seconds that it took, and what it said since it serves."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, time.monotonic() - began, out, err


@contextlib.contextmanager
def serving(home: Home, *arguments: str, **variables: str) -> Iterator[Http]:
    """A server that ends well, and has had nothing to complain about, whatever was done to it."""
    http = Http(home, *arguments, **variables)
    try:
        yield http
    finally:
        code, _, out, err = http.end()
    assert (code, out, err) == (0, "", ""), err


def sessions(home: Home, name: str) -> int | None:
    """How many live clients the daemon knows for this agent; None if it does not host it."""
    with home.rpc() as rpc:
        agents = {agent["name"]: agent for agent in rpc.call("status")["agents"]}
    return agents[name]["sessions"] if name in agents else None


def until_sessions(home: Home, name: str, number: int) -> None:
    wait_until(lambda: sessions(home, name) == number, f"{name} has {number} live clients")


def unread(home: Home, name: str) -> list[str]:
    """The texts that wait for the agent."""
    return [message["text"] for message in home.json("inbox", name, "--peek")["messages"]]


# --- the SDK's client ---


@contextlib.asynccontextmanager
async def connected(http: Http, transport: str, name: str | None = None, **headers: str) -> AsyncIterator[Client]:
    """A client of the SDK. `transport` is `HANDSHAKE`, `MODERN` or `SSE`."""
    sent = headers | ({"Agent-Mesh-Name": name} if name else {})
    info = Implementation(name="tests", version="1")
    if transport == SSE:
        reached: Any = sse_client(f"{http.url}/sse", headers=sent)
        async with Client(reached, mode="legacy", client_info=info) as client:
            yield client
        return
    mode = "legacy" if transport == HANDSHAKE else "auto"  # which asks, and finds the newest
    async with httpx2.AsyncClient(headers=sent, timeout=60) as made:
        reached = streamable_http_client(f"{http.url}/mcp", http_client=made)
        async with Client(reached, mode=mode, client_info=info) as client:
            assert transport in (HANDSHAKE, client.protocol_version)
            yield client


def data(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, text(result)
    assert result.structured_content is not None
    found: dict[str, Any] = result.structured_content
    return found


def text(result: CallToolResult) -> str:
    return result.content[0].text  # type: ignore[union-attr]


# --- plain requests ---


class Raw:
    """A session of the handshake's era, one plain request after the other."""

    def __init__(self, http: Http, name: str | None = None, **headers: str) -> None:
        self.http = http
        named = {"Agent-Mesh-Name": name} if name else {}
        self.client = httpx2.Client(base_url=http.url, headers={"Accept": ACCEPT, **named, **headers}, timeout=DEADLINE)
        self.last = 0
        answer = self.post("initialize", INITIALIZE)
        self.id = answer.headers["mcp-session-id"]
        self.client.headers["mcp-session-id"] = self.id
        self.instructions: str = parsed(answer)["result"]["instructions"]
        self.name = self.instructions.partition("You are ")[2].partition(";")[0]
        self.notify("notifications/initialized")

    def post(self, method: str, params: dict[str, Any], request_id: object = None) -> httpx2.Response:
        self.last += 1
        body = {"jsonrpc": "2.0", "id": request_id or self.last, "method": method, "params": params}
        return self.client.post("/mcp", json=body)

    def notify(self, method: str, **params: Any) -> None:
        answer = self.client.post("/mcp", json={"jsonrpc": "2.0", "method": method, "params": params})
        assert answer.status_code == 202

    def call(self, tool: str, request_id: object = None, /, **arguments: Any) -> dict[str, Any]:
        """The tool's whole result."""
        answer = self.post("tools/call", {"name": tool, "arguments": arguments}, request_id)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = parsed(answer)["result"]
        return result

    def texts(self) -> list[str]:
        """The inbox, read."""
        return [message["text"] for message in self.call("mesh_inbox")["structuredContent"]["messages"]]

    def begin(self, tool: str, /, **arguments: Any) -> socket.socket:
        """A call whose answer nobody reads yet."""
        self.last += 1
        body = {"jsonrpc": "2.0", "id": self.last, "method": "tools/call"}
        params = {"name": tool, "arguments": arguments}
        return request(self.http, body | {"params": params}, 0, **{"mcp-session-id": self.id})

    def delete(self) -> int:
        return self.client.delete("/mcp").status_code

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.close()


def parsed(answer: httpx2.Response) -> dict[str, Any]:
    """The one JSON-RPC message of a response, whether JSON or SSE."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith(("data: ", "{"))]
    (line,) = lines
    message: dict[str, Any] = json.loads(line)
    return message


def modern(method: str, request_id: object = 1, /, **params: Any) -> dict[str, Any]:
    """A request that stands alone."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    given = params.pop("_meta", {})
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {**params, "_meta": meta | given}}


def modern_headers(body: dict[str, Any]) -> dict[str, str]:
    tool = body["params"].get("name")
    named = {"mcp-name": tool} if tool else {}
    return {"mcp-protocol-version": MODERN, "mcp-method": body["method"], **named}


def modern_call(tool: str, /, *, meta: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    return modern("tools/call", name=tool, arguments=arguments, _meta=meta or {})


# --- bare sockets ---


def dial(http: Http, receive_buffer: int = 0) -> socket.socket:
    made = socket.socket()
    made.settimeout(DEADLINE)
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.connect(("127.0.0.1", http.port))
    return made


def head(http: Http, first: str = "POST /mcp HTTP/1.1", **headers: str) -> bytes:
    given = {"Host": f"127.0.0.1:{http.port}", "Accept": ACCEPT, "Content-Type": "application/json"} | headers
    return "\r\n".join([first, *(f"{key}: {value}" for key, value in given.items()), "", ""]).encode("latin-1")


def request(http: Http, body: Any, receive_buffer: int = 0, **headers: str) -> socket.socket:
    """A POST to /mcp that was sent; its response is still to be read."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    made = dial(http, receive_buffer)
    made.sendall(head(http, **({"Content-Length": str(len(content))} | headers)) + content)
    return made


def status_of(connection: socket.socket) -> int:
    """The status of the response, which is read to its end if the server closes the connection."""
    return int(connection.makefile("rb").readline().split()[1])


class Stream:
    """A client of the older transport, by hand: its `/sse` is read only when it wants to."""

    def __init__(self, http: Http, name: str, receive_buffer: int = 0) -> None:
        self._http = http
        self.socket = dial(http, receive_buffer)
        self.socket.sendall(head(http, "GET /sse HTTP/1.1", **{"Agent-Mesh-Name": name}))
        self._lines = self.socket.makefile("rb")
        while not (line := self._lines.readline()).startswith(b"data: "):
            assert line, "the stream has ended"
        self.endpoint = line.removeprefix(b"data: ").decode().strip()
        self.post("initialize", 1, **INITIALIZE)
        assert self.read()["id"] == 1
        self.post("notifications/initialized")

    def post(self, method: str, request_id: int | None = None, /, **params: Any) -> int:
        numbered = {} if request_id is None else {"id": request_id}
        body = {"jsonrpc": "2.0", "method": method, "params": params} | numbered
        return httpx2.post(self._http.url + self.endpoint, json=body, timeout=DEADLINE).status_code

    def read(self) -> dict[str, Any]:
        """The next message of the stream."""
        while not (line := self._lines.readline()).startswith(b"data: "):
            assert line, "the stream has ended"
        message: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        return message

    def close(self) -> None:
        self._lines.close()
        self.socket.close()
