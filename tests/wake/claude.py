"""Plays a Claude Code session as far as the mesh sees one: a process with an MCP server for a child, the hooks that it
runs with the JSON that it gives them, and the inbox socket that it listens on."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.helper import DEADLINE, Home, Rpc, wait_until
from tests.shim.client import Client

# The shim's parent: a client's hooks have its process id in CLAUDE_PID. The `:` keeps the shell from becoming the shim.
_CLIENT = ("sh", "-c", '"$0" -m meshctl mcp; :', sys.executable)
TOKEN = "c0ffee" * 5

# What each event brings beside the fields of all events, as it was recorded.
_FIELDS: dict[str, dict[str, Any]] = {
    "SessionStart": {"source": "startup", "model": "claude-test"},
    "UserPromptSubmit": {"prompt": "go on"},
    "PreToolUse": {"tool_name": "Bash", "tool_input": {"command": "ls"}, "tool_use_id": "toolu_01"},
    "PostToolUse": {
        "tool_name": "Bash",
        "tool_input": {"command": "ls"},
        "tool_use_id": "toolu_01",
        "tool_response": [{"type": "text", "text": "notes.txt"}],
        "duration_ms": 12,
    },
    "PostToolUseFailure": {
        "tool_name": "Bash",
        "tool_input": {"command": "false"},
        "tool_use_id": "toolu_01",
        "error": "exit code 1",
        "is_interrupt": False,
    },
    "PostToolBatch": {"tool_calls": [{"tool_name": "Bash", "tool_use_id": "toolu_01"}]},
    "Stop": {"stop_hook_active": False, "last_assistant_message": "done", "background_tasks": [], "session_crons": []},
    "SessionEnd": {"reason": "prompt_input_exit"},
    "Notification": {"message": "Claude is waiting for your input", "notification_type": "idle_prompt"},
    "SubagentStop": {"agent_id": "a1", "agent_type": "general", "stop_hook_active": False},
}


class Claude:
    """One session, idle at its prompt, that knows the tools. `inbox`: it has an inbox socket, too."""

    def __init__(self, home: Home, folder: Path, name: str, *, inbox: InboxSocket | None = None) -> None:
        self.home = home
        self.name = name
        self.id = f"session-of-{name}"
        self.folder = folder
        variables: dict[str, Any] = {
            "AGENT_MESH_NAME": name,
            "CLAUDE_CODE_SESSION_ID": self.id,
            "CLAUDE_PROJECT_DIR": str(folder),
        }
        if inbox is not None:
            variables |= {"CLAUDE_CODE_MESSAGING_SOCKET": inbox.path, "CLAUDE_CODE_MESSAGING_TOKEN": TOKEN}
        self.client = Client(home, folder, command=_CLIENT, **variables)
        self.pid = str(self.client.process.pid)
        self.waiting: list[Waiting] = []
        try:
            self.client.initialize()
            self.client.result(self.client.request("tools/list"))
            # A call that comes back has been through the daemon, and so has what was sent before it.
            self.client.ok("mesh_pending")
        except BaseException:
            self.close()
            raise

    def input(self, event: str, /, **fields: Any) -> str:
        """What a hook of this event is given on standard input."""
        common = {
            "session_id": self.id,
            "transcript_path": str(self.folder / "transcript.jsonl"),
            "cwd": str(self.folder),
            "prompt_id": "p1",
            "permission_mode": "default",
            "hook_event_name": event,
        }
        return json.dumps(common | _FIELDS.get(event, {}) | fields)

    def hook(self, event: str, /, **fields: Any) -> str | None:
        """Run the hook of an event; the line that it puts before the model, if any. It must harm nothing."""
        done = run_hook(self.home, self.input(event, **fields), CLAUDE_PID=self.pid)
        assert (done.returncode, done.stderr) == (0, "")
        if not done.stdout:
            return None
        said = json.loads(done.stdout)
        line = said["hookSpecificOutput"]["additionalContext"]
        assert said == {"hookSpecificOutput": {"hookEventName": event, "additionalContext": line}}
        assert isinstance(line, str)
        return line

    def wait(self, event: str = "Stop", /, *, armed: bool = True, **fields: Any) -> Waiting:
        """Begin a hook that waits. `armed`: not before the daemon knows of it."""
        waiting = Waiting(self.home, self.input(event, **fields), CLAUDE_PID=self.pid)
        self.waiting.append(waiting)
        if armed:
            wait_until(lambda: "hook" in self.wake["armed"], "the hook waits")
        return waiting

    @property
    def wake(self) -> dict[str, Any]:
        """What `status` says of how this session is woken."""
        wake: dict[str, Any] = agent(self.home, self.name)["wake"]
        return wake

    def has(self, unread: int) -> None:
        """Wait until so much mail is unread."""
        wait_until(lambda: agent(self.home, self.name)["unread"] == unread, f"{self.name} has {unread} unread")

    def read(self) -> list[str]:
        """The model calls mesh_inbox; the texts."""
        texts = self.client.texts()
        self.has(0)
        return texts

    def close(self) -> None:
        for waiting in self.waiting:
            waiting.close()
        self.client.close()


class Waiting:
    """`meshctl hook --wait -` in the background."""

    def __init__(self, home: Home, given: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "meshctl", "hook", "--wait", "-"],
            env=home.env | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(given)
        self.process.stdin.close()
        self.process.stdin = None  # `communicate` would flush it

    def end(self) -> tuple[int, str, str]:
        """Wait for its own end: exit code, standard output, standard error."""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err

    @property
    def goes_on(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        if self.goes_on:
            self.process.kill()
        self.process.communicate()


class InboxSocket:
    """The socket on which a session takes messages. It answers nothing, whatever it is sent."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mi")
        self.path = os.path.join(self._folder.name, "s")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        self._socket.settimeout(DEADLINE)

    def message(self) -> str:
        """The next message that a session would begin a turn with."""
        connection, _ = self._socket.accept()
        with connection, connection.makefile() as lines:
            connection.settimeout(DEADLINE)
            auth, user = (json.loads(line) for line in lines)
        assert auth == {"type": "auth", "token": TOKEN}
        assert user["type"] == "user"
        assert user["message"]["role"] == "user"
        text: str = user["message"]["content"]
        return text

    def is_quiet(self) -> bool:
        """Whether nobody is waiting to be heard."""
        self._socket.setblocking(False)
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(DEADLINE)
        return False

    def close(self) -> None:
        """As after a crash: the file stays, and nobody listens."""
        self._socket.close()

    def remove(self) -> None:
        self.close()
        self._folder.cleanup()


class Events:
    """What the daemon tells of, from now on."""

    def __init__(self, home: Home) -> None:
        self._rpc = home.rpc()
        self._rpc.send("events.subscribe", follow=True)
        self._rpc.read()  # the snapshot

    def until(self, kind: str, **facts: Any) -> dict[str, Any]:
        """The next event of that kind with those facts."""
        while True:
            event: dict[str, Any] = self._rpc.read()["params"]["item"]
            if event["event"] == kind and facts.items() <= event.items():
                return event

    def close(self) -> None:
        self._rpc.close()


def run_hook(home: Home, given: str | bytes, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`meshctl hook -` to its end."""
    return home.run("hook", *options, "-", stdin=given, **variables)


def agent(home: Home, name: str) -> dict[str, Any]:
    """What `status` says of an agent."""
    with home.rpc() as rpc:
        found: dict[str, Any] = next(entry for entry in rpc.call("status")["agents"] if entry["name"] == name)
    return found


def send(rpc: Rpc, to: str, *senders: str, text: str = "the launch code is 0000") -> None:
    for sender in senders:
        rpc.call("send", target=to, message=text, from_=sender)


@contextlib.contextmanager
def an_inbox() -> Iterator[InboxSocket]:
    inbox = InboxSocket()
    try:
        yield inbox
    finally:
        inbox.remove()
