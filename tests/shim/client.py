"""A small MCP client over stdio: raw lines to a real `meshctl mcp`, every answer kept, nothing believed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.helper import DEADLINE, Home

MESHCTL = (sys.executable, "-m", "meshctl", "mcp")
PROTOCOL = "2025-06-18"
HELLO = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


class Reply(NamedTuple):
    """A tool's result: its text, its structured content, and whether it is an error."""

    text: str
    data: dict[str, Any]
    failed: bool


class McpError(Exception):
    """A JSON-RPC error for one request."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.code: int = error["code"]
        self.message: str = error["message"]


class Client:
    """One session. Answers are kept by the JSON of their id, so that a second one to a request shows.

    `reads`: whether the shim's output is read at all times, or only while an answer is waited for. `cwd` is the
    session's project.
    """

    def __init__(
        self, home: Home, cwd: Path, *, command: tuple[str, ...] = MESHCTL, reads: bool = True, **variables: str
    ) -> None:
        # From the home alone: a client in which the tests themselves run would be taken for this one.
        env = {k: v for k, v in home.env.items() if not k.startswith("CLAUDE")} | variables
        cwd.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.lines: list[bytes] = []
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self.told: list[dict[str, Any]] = []  # notifications, and errors that belong to no request
        self._came = threading.Condition()
        self._ended = False
        self._last = 0
        self._reader: threading.Thread | None = None
        if reads:
            self.read()

    # --- lines ---

    def read(self) -> None:
        """Begin to read the shim's output."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        """Read one line, and keep it. False at the end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        message = json.loads(line) if line else None
        with self._came:
            if message is None:
                self._ended = True
            elif "method" in message or message.get("id") is None:
                self.told.append(message)
            else:
                self.answers.setdefault(json.dumps(message["id"]), []).append(message)
            self.lines += [line] if line else []
            self._came.notify_all()
        return message is not None

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message: dict[str, Any]) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def until(self, condition: Any, what: str, deadline: float = DEADLINE) -> Any:
        """The first true value of the condition, which is looked at after every line that comes."""
        until = time.monotonic() + deadline
        with self._came:
            while not (value := condition()):
                assert not self._ended, f"the shim ended before: {what}; {self.errors()}"
                if self._reader is None:
                    self._one()
                    continue
                left = until - time.monotonic()
                assert left > 0, f"not within {deadline:g} s: {what}"
                self._came.wait(left)
        return value

    # --- requests ---

    def request(self, method: str, params: Any = None, request_id: Any = None) -> Any:
        """Ask without waiting, and the request's id."""
        if request_id is None:
            self._last += 1
            request_id = self._last
        self.send({"id": request_id, "method": method} | ({} if params is None else {"params": params}))
        return request_id

    def notify(self, method: str, params: Any = None) -> None:
        self.send({"method": method} | ({} if params is None else {"params": params}))

    @property
    def ended(self) -> bool:
        """Whether the shim's output has ended."""
        return self._ended

    def has(self, request_id: Any) -> bool:
        return json.dumps(request_id) in self.answers

    def answer(self, request_id: Any, deadline: float = DEADLINE) -> dict[str, Any]:
        """The whole answer to a request."""
        key = json.dumps(request_id)
        found: dict[str, Any] = self.until(lambda: self.answers.get(key), f"an answer to {key}", deadline)[0]
        return found

    def result(self, request_id: Any, deadline: float = DEADLINE) -> dict[str, Any]:
        """The result of a request. An error fails with its code."""
        answer = self.answer(request_id, deadline)
        if "error" in answer:
            raise McpError(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def initialize(self) -> dict[str, Any]:
        """The handshake, and what the server says in it."""
        result = self.result(self.request("initialize", HELLO))
        self.notify("notifications/initialized")
        return result

    # --- tools ---

    def begin(self, tool: str, /, request_id: Any = None, **arguments: Any) -> Any:
        """Call a tool without waiting, and the request's id."""
        return self.request("tools/call", {"name": tool, "arguments": arguments}, request_id)

    def finish(self, request_id: Any, deadline: float = DEADLINE) -> Reply:
        result = self.result(request_id, deadline)
        assert [part["type"] for part in result["content"]] == ["text"]
        return Reply(result["content"][0]["text"], result.get("structuredContent") or {}, result.get("isError") is True)

    def call(self, tool: str, /, **arguments: Any) -> Reply:
        return self.finish(self.begin(tool, **arguments))

    def ok(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """The structured result of a tool that must succeed."""
        reply = self.call(tool, **arguments)
        assert not reply.failed, reply.text
        return reply.data

    def refused(self, tool: str, /, **arguments: Any) -> str:
        """The text of a tool that must fail, which says what to do next."""
        reply = self.call(tool, **arguments)
        assert reply.failed, reply
        assert not reply.data
        what, _, then = reply.text.partition("\nNext: ")
        assert what, reply.text
        assert then, reply.text
        return reply.text

    def texts(self) -> list[str]:
        """What `mesh_inbox` hands over, oldest first."""
        return [message["text"] for message in self.ok("mesh_inbox", limit=1000)["messages"]]

    # --- ends ---

    def errors(self) -> str:
        """Standard error of a process that has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def end(self, deadline: float = DEADLINE) -> int:
        """End of file on its input, and the exit code."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        return self.process.wait(deadline)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, however it is; an answer that came twice fails."""
        if self.process.poll() is None:
            self.resume()
        try:
            self.end(5)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            if self._reader is not None:
                self._reader.join(DEADLINE)
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()
        twice = {key: found for key, found in self.answers.items() if len(found) > 1}
        assert not twice, f"answered more than once: {twice}"


@contextlib.contextmanager
def clients_of(home: Home, *folders: Path, **options: Any) -> Iterator[list[Client]]:
    """A client in each of the folders, before its handshake."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Client(home, folder, **options))) for folder in folders]


@contextlib.contextmanager
def a_session(home: Home, cwd: Path, **options: Any) -> Iterator[Client]:
    """A session after its handshake."""
    client = Client(home, cwd, **options)
    try:
        client.initialize()
        yield client
    finally:
        client.close()
