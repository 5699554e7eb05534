"""A Messages API on loopback whose model is a function: a request goes in, what the model does comes out.

Only what Claude Code needs of https://docs.claude.com/en/api/messages is here: streamed and whole answers, token
counts, and 404 for all the rest, which the program takes without a word. One server for one session: nothing here
tells the requests of two sessions apart.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helper import DEADLINE, wait_until

# The names of tools whose schemas the model must ask for before it may call them, a line each.
_DEFERRED = re.compile(r"^mcp__\S+$", re.MULTILINE)

# The request that compacts a conversation is otherwise like any other step of it.
_COMPACTION = "CRITICAL: Respond with TEXT ONLY"


@dataclass(frozen=True)
class Text:
    """The model says something. With a `gate` it says half, waits until the gate is set, and says the rest."""

    text: str
    gate: threading.Event | None = None

    def block(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


@dataclass(frozen=True)
class Call:
    """The model calls a tool, by the full name under which it was offered: `Request.tool` gives it."""

    name: str
    input: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"toolu_{secrets.token_hex(8)}")

    def block(self) -> dict[str, Any]:
        return {"type": "tool_use", "id": self.id, "name": self.name, "input": self.input}


Answer = str | Text | Call | list[Text | Call]


@dataclass(frozen=True)
class Result:
    """What a tool call gave, as the model sees it. `id` is the call's."""

    id: str
    text: str
    error: bool


@dataclass(frozen=True)
class Request:
    """One request for a message. `at` is on the monotonic clock."""

    at: float
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def tools(self) -> list[str]:
        """The names of the tools whose schemas the model has."""
        return [tool["name"] for tool in self.body.get("tools", [])]

    @property
    def deferred(self) -> list[str]:
        """The names of the MCP tools that the model was told of."""
        return [name for message in self.messages for block in _blocks(message) for name in _names(block)]

    def tool(self, name: str) -> str:
        """A tool's full name, `mcp__SERVER__NAME` or a plugin's longer one. Fails if the model wasn't offered it."""
        offered = self.tools + self.deferred
        for full in offered:
            if full == name or full.endswith(f"__{name}"):
                return full
        raise AssertionError(f"the model was not offered {name}: {offered}")

    @property
    def main(self) -> bool:
        """Whether it is a step of the user's own conversation: no subagent's, no title, check or summary."""
        last = self.messages[-1]["content"]
        return (
            "Agent" in self.tools
            and "x-claude-code-agent-id" not in self.headers
            and not (isinstance(last, str) and last.startswith(_COMPACTION))
        )

    def new(self) -> list[dict[str, Any]]:
        """The blocks that have come after the model's last message."""
        blocks: list[dict[str, Any]] = []
        for message in self.messages:
            if message["role"] == "assistant":
                blocks.clear()
            else:
                blocks.extend(_blocks(message))
        return blocks

    @property
    def said(self) -> str:
        """All text that is new: the user's words and the wakes, and what the program puts beside them, which is where
        hooks speak. In a session's first request that is the environment and all servers' instructions too, so look
        for words that these don't have."""
        return "\n".join(block["text"] for block in self.new() if block["type"] == "text")

    @property
    def results(self) -> list[Result]:
        """The results of the tool calls in the model's last message."""
        return [
            Result(block["tool_use_id"], _text(block.get("content", "")), bool(block.get("is_error")))
            for block in self.new()
            if block["type"] == "tool_result"
        ]

    @property
    def text(self) -> str:
        """The whole conversation as one string, to look for what the model must or must not know."""
        return json.dumps([self.body.get("system"), self.messages], ensure_ascii=False)


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _names(block: dict[str, Any]) -> list[str]:
    return _DEFERRED.findall(block["text"]) if block["type"] == "text" else []


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content)


Script = Callable[[Request], Answer]


class MessagesApi:
    """The server. `script` decides each step of the main conversation, `side` all else; both say "ok" if not set.

    They run on the request's own thread, so they may wait, as a slow model does. One that fails is kept in
    `failures`, and leaving the `with` block raises it: a test cannot pass over it.

    A call of a tool that the model knows only by name goes as the real model's does: it searches for the tool first,
    and the call follows in the next step, without asking the script again.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script: Script = script if script is not None else lambda request: "ok"
        self.side: Script = lambda request: "ok"
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        self.failures: list[BaseException] = []
        self._postponed: dict[str, list[Text | Call]] = {}
        self._lock = threading.Lock()
        self._under_way = 0
        api = self

        class Handler(_Handler):
            owner = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def turns(self) -> list[Request]:
        """The requests of the main conversation, in order. Each step of a turn with tool calls is one."""
        with self._lock:
            return [request for request in self.requests if request.main]

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._under_way > 0

    def next_turn(self, after: int, deadline: float = DEADLINE) -> Request:
        """The main request number `after`, counted from 0: with `len(api.turns)` from before, the next one."""
        wait_until(lambda: len(self.turns) > after, "the model is asked", deadline)
        return self.turns[after]

    def heard(self, words: str, after: int = 0) -> Request | None:
        """The first main request, from number `after` on, in which these words are new, said by whomever."""
        for request in self.turns[after:]:
            if words in request.said or any(words in result.text for result in request.results):
                return request
        return None

    def wait_for(self, words: str, after: int = 0, deadline: float = DEADLINE) -> Request:
        """The first main request, from number `after` on, in which these words are new, once it comes."""
        found: Request = wait_until(lambda: self.heard(words, after), f"the model hears {words!r}", deadline)
        return found

    def answer(self, headers: dict[str, str], body: dict[str, Any]) -> list[Text | Call]:
        """What the model does now. For the handler."""
        request = Request(time.monotonic(), headers, body)
        with self._lock:
            self.requests.append(request)
        for result in request.results:
            if postponed := self._postponed.pop(result.id, None):
                return postponed
        try:
            answer = self.script(request) if request.main else self.side(request)
        except BaseException as error:
            self.failures.append(error)
            return [Text(f"the test's script failed: {error!r}")]
        parts = answer if isinstance(answer, list) else [Text(answer) if isinstance(answer, str) else answer]
        named = {part.name for part in parts if isinstance(part, Call)} - set(request.tools)
        if not named & set(request.deferred):
            return parts
        search = Call("ToolSearch", {"query": "select:" + ",".join(sorted(named))})
        self._postponed[search.id] = parts
        return [search]

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Counts an answer as under way. For the handler."""
        with self._lock:
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MessagesApi:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()
        if self.failures and error is None:
            raise self.failures[0]


class _Handler(BaseHTTPRequestHandler):
    owner: MessagesApi
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        if path == "/v1/messages/count_tokens":
            self._json(200, {"input_tokens": 100})
        elif path == "/v1/messages":
            body = json.loads(data)
            headers = {name.lower(): value for name, value in self.headers.items()}
            # The program hangs up when its user presses Esc.
            with self.owner.answering(), contextlib.suppress(ConnectionError):
                self._message(body, self.owner.answer(headers, body))
        else:
            self._unknown()

    def do_GET(self) -> None:
        self._unknown()

    def do_HEAD(self) -> None:
        self._unknown()

    def _unknown(self) -> None:
        self.owner.unknown.append(f"{self.command} {self.path}")
        self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": self.path}})

    def _json(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _message(self, body: dict[str, Any], parts: list[Text | Call]) -> None:
        reason = "tool_use" if any(isinstance(part, Call) for part in parts) else "end_turn"
        message: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(8)}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 100, "output_tokens": 1},
        }
        if not body.get("stream"):
            self._json(200, message | {"content": [part.block() for part in parts], "stop_reason": reason})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        self._event("message_start", message=message)
        for index, part in enumerate(parts):
            self._part(index, part)
        self._event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 9})
        self._event("message_stop")

    def _part(self, index: int, part: Text | Call) -> None:
        if isinstance(part, Call):
            self._event("content_block_start", index=index, content_block=part.block() | {"input": {}})
            delta = {"type": "input_json_delta", "partial_json": json.dumps(part.input)}
            self._event("content_block_delta", index=index, delta=delta)
        else:
            self._event("content_block_start", index=index, content_block=part.block() | {"text": ""})
            middle = len(part.text) // 2
            self._event("content_block_delta", index=index, delta={"type": "text_delta", "text": part.text[:middle]})
            if part.gate is not None:
                part.gate.wait(DEADLINE)
            self._event("content_block_delta", index=index, delta={"type": "text_delta", "text": part.text[middle:]})
        self._event("content_block_stop", index=index)

    def _event(self, type_: str, /, **fields: Any) -> None:
        self.wfile.write(f"event: {type_}\ndata: {json.dumps({'type': type_, **fields})}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent: the requests are recorded."""
