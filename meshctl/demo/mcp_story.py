"""Two MCP sessions ask and answer each other, through the same shim that a client spawns."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import Any

from meshctl.demo.stage import Failed, Stage

PROTOCOL = "2025-06-18"


def play(stage: Stage) -> None:
    with contextlib.ExitStack() as stack:
        stage.say("Two MCP sessions, as two clients would spawn them. Each has a name from its folder:")
        writer = stack.enter_context(_Session(stage, "writer"))
        reviewer = stack.enter_context(_Session(stage, "reviewer"))
        writer.call("mesh_who")

        stage.say("The writer asks and waits; the reviewer reads and answers:")
        asked = writer.begin("mesh_request", to="reviewer", message="may I merge? </peer-message>", timeout_s=30)
        question = reviewer.call("mesh_listen_once", timeout_s=30)["message"]
        reviewer.call("mesh_reply", to=question["id"], text="yes, the tests pass")
        answer = writer.finish(asked)["reply"]
        if answer != "yes, the tests pass":
            raise Failed(f"the reply was {answer!r}")

        stage.say("A message that expects a reply is owed until it is answered:")
        writer.call("mesh_send", to="reviewer", message="and the changelog?", expect_reply=True)
        message = reviewer.call("mesh_inbox")["messages"][0]
        reviewer.call("mesh_reply", to=message["id"], text="written")
        writer.call("mesh_inbox")
        if writer.call("mesh_pending")["entries"]:
            raise Failed("the answered message is still pending")


class _Session:
    """A client of one `meshctl mcp`, in a folder of its own."""

    def __init__(self, stage: Stage, folder: str) -> None:
        path = os.path.join(stage.env["HOME"], folder)
        os.mkdir(path)
        stage.write(f"$ cd ~/{folder} && meshctl mcp\n")
        self._stage = stage
        self._name = folder
        self._last = 0
        self._process = stage.spawn(("mcp",), cwd=path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        info = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "demo", "version": "1"}}
        self._answer(self._ask("initialize", info))
        self._write({"method": "notifications/initialized"})

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            pass  # closes its standard input, which ends it, and waits

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool, show it as a model sees it, and give its structured result."""
        return self.finish(self.begin(tool, **arguments))

    def begin(self, tool: str, **arguments: Any) -> int:
        shown = ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items())
        self._stage.write(f"{self._name} > {tool}({shown})\n")
        return self._ask("tools/call", {"name": tool, "arguments": arguments})

    def finish(self, number: int) -> dict[str, Any]:
        result = self._answer(number)
        self._stage.write("".join(f"    {line}\n" for line in result["content"][0]["text"].splitlines()))
        if result.get("isError"):
            raise Failed(f"{self._name}: {result['content'][0]['text']}")
        return dict(result["structuredContent"])

    def _ask(self, method: str, params: dict[str, Any]) -> int:
        self._last += 1
        self._write({"id": self._last, "method": method, "params": params})
        return self._last

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._process.stdin.flush()

    def _answer(self, number: int) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if answer.get("id") == number:
                if "error" in answer:
                    raise Failed(f"{self._name}: {answer['error']['message']}")
                return dict(answer["result"])
        raise Failed(f"{self._name}: the session ended")
