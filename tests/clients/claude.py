"""The real Claude Code in a terminal of its own: typed at with keys, looked at as a screen."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.messages_api import MessagesApi, Request
from tests.helper import DEADLINE, Home, wait_until

PROGRAM = Path(__file__).parent / "node_modules" / "@anthropic-ai" / "claude-code-linux-x64" / "claude"

_KEY = "sk-ant-api03-no-account-behind-this-key"

_BUSY = "esc to interrupt"


def missing() -> str:
    """Why no session can run here, or nothing. tests/clients/run gives its reason in the variable."""
    if not PROGRAM.exists():
        why = os.environ.get("AGENT_MESH_TESTS_NO_CLIENTS")
        return why or "Claude Code is not installed: tests/clients/run does it, on Linux x86-64"
    return "" if shutil.which("tmux") else "tmux is not installed: tests/clients/run does it"


class Claude:
    """A user of Claude Code: a home in which all first-run questions are answered, and one project that is trusted.

    Where the program is not installed, the test that makes one is skipped. `variables` are added to the environment
    of all sessions.
    """

    def __init__(self, home: Path, project: Path, api: MessagesApi, **variables: str) -> None:
        if why := missing():
            pytest.skip(why)
        self.home = home
        self.project = project
        self.api = api
        home.mkdir(parents=True, exist_ok=True)
        project.mkdir(parents=True, exist_ok=True)
        # From nothing: the variables of a session in which the tests themselves run would change this one.
        self.env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "SHELL": "/bin/sh",
            "ANTHROPIC_BASE_URL": api.url,
            "ANTHROPIC_API_KEY": _KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        } | variables
        self.change(
            ".claude.json",
            hasCompletedOnboarding=True,
            theme="dark",
            customApiKeyResponses={"approved": [_KEY[-20:]], "rejected": []},
            officialMarketplaceAutoInstallAttempted=True,
            projects={str(project): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
        )

    @classmethod
    def of(cls, home: Home, project: Path, api: MessagesApi, **variables: str) -> Claude:
        """A user who has our programs: in the same home, with its daemon's variables, and with `meshctl` on PATH."""
        ours = {name: value for name, value in home.env.items() if name.startswith(("AGENT_MESH_", "XDG_"))}
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        return cls(home.path, project, api, **{"PATH": path} | ours | variables)

    def change(self, file: str, **values: Any) -> None:
        """Set top-level keys of a JSON file below the home."""
        path = self.home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        now = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(now | values, indent=2))

    def settings(self, **values: Any) -> None:
        """Set top-level keys of the user's settings.json."""
        self.change(".claude/settings.json", **values)

    def allow(self, *rules: str) -> None:
        """The tools, or `mcp__SERVER` for all of a server's, that are run without asking. Replaces the rules before."""
        self.settings(permissions={"allow": list(rules)})

    def server(self, name: str, command: str, *arguments: str, **variables: str) -> None:
        """Configure one MCP server on stdio; replaces those before. Our own installer has its own way to say it."""
        server = {"type": "stdio", "command": command, "args": list(arguments), "env": variables}
        self.change(".claude.json", mcpServers={name: server})

    def run(self, *arguments: str) -> str:
        """The output of a command such as `claude mcp list`, which must succeed."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            env=self.env,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        output = done.stdout.decode()
        assert done.returncode == 0, f"claude {arguments}: exit {done.returncode}: {output}"
        return output

    def session(self, *arguments: str, **variables: str) -> ClaudeSession:
        """A session with these command-line arguments and further variables, not started yet: `with` does.

        Its permission mode, unless given, is "default", which asks before tools that no rule allows. The program's own
        default, "auto", wants verdicts on them that only the real API gives.
        """
        return ClaudeSession(self, *arguments, **variables)


class ClaudeSession:
    """One run of the program. `start` or `with` starts it; `stop`, or the end of `with`, ends it and its terminal."""

    def __init__(self, user: Claude, *arguments: str, **variables: str) -> None:
        self.user = user
        self.api = user.api
        mode = () if "--permission-mode" in arguments else ("--permission-mode", "default")
        self.arguments = (*mode, *arguments)
        self.env = user.env | variables
        self.pid = 0
        # A tmux server of our own, at a path of our own: nobody else's is seen or touched.
        self._folder = tempfile.TemporaryDirectory(prefix="mt")
        self._socket = os.path.join(self._folder.name, "s")

    def start(self) -> None:
        """Returns when the prompt is idle. The MCP servers may still be starting then: see `wait_server`."""
        # A dead pane stays, so that what a session has said at its end can be read.
        dead = ["start-server", ";", "set-option", "-gw", "remain-on-exit", "on", ";"]
        new = [
            "new-session",
            "-d",
            "-x",
            "160",
            "-y",
            "50",
            "-c",
            str(self.user.project),
            str(PROGRAM),
            *self.arguments,
        ]
        self._tmux("-f", os.devnull, *dead, *new)
        self.pid = int(self._tmux("display-message", "-p", "#{pane_pid}"))
        self.wait_idle()

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *arguments], env=self.env, capture_output=True, timeout=DEADLINE
        )
        if done.returncode:
            raise AssertionError(f"tmux {arguments}: {done.stderr.decode()}")
        return done.stdout.decode()

    def screen(self) -> str:
        """What the user sees."""
        return self._tmux("capture-pane", "-p").replace("\u00a0", " ")

    @property
    def idle(self) -> bool:
        """Whether the prompt is empty, no turn runs, and nothing is asked of the user."""
        lines = [line.rstrip() for line in self.screen().rstrip().splitlines()]
        prompt = any(
            line == "❯" and above.startswith("───") and below.startswith("───")
            for above, line, below in zip(lines, lines[1:], lines[2:], strict=False)
        )
        return prompt and _BUSY not in lines[-1]

    @property
    def running(self) -> bool:
        return self._tmux("display-message", "-p", "#{pane_dead}").strip() == "0"

    def wait(self, condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
        """`wait_until`, whose failure shows the screen."""
        try:
            return wait_until(condition, what, deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen()}") from None

    def wait_idle(self, deadline: float = DEADLINE) -> None:
        """Until the prompt is idle. Just after a wake or a key it may be so because nothing has begun yet: wait for
        the request first."""
        self.wait(lambda: self.idle and not self.api.busy, "the prompt is idle", deadline)

    def wait_screen(self, words: str, deadline: float = DEADLINE) -> None:
        """Until the user sees these words."""
        self.wait(lambda: words in self.screen(), f"{words!r} is on the screen", deadline)

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names: Enter, Escape, C-c."""
        self._tmux("send-keys", *names)

    def write(self, line: str) -> None:
        """Type a line without Enter, until it is seen."""
        self._tmux("send-keys", "-l", "--", line)
        end = "".join(line.split())[-40:]
        self.wait(lambda: end in "".join(self.screen().split()), f"{line!r} is in the prompt")

    def enter(self, line: str) -> None:
        """Type a line, and send it."""
        self.write(line)
        self.keys("Enter")

    def ask(self, line: str) -> Request:
        """Type a line, and send it; the request that it makes."""
        before = len(self.api.turns)
        self.enter(line)
        return self.api.wait_for(line, before)

    def confirm(self, question: str) -> None:
        """Take the first choice of the dialog that asks this. A dialog ignores keys in its first moments, so Enter is
        pressed until the question is gone; at the prompt it does nothing."""
        self.wait_screen(question)

        def gone() -> bool:
            self.keys("Enter")
            with contextlib.suppress(AssertionError):
                return bool(wait_until(lambda: question not in self.screen(), "the dialog goes", 0.5))
            return False

        self.wait(gone, f"the dialog {question!r} goes")

    def wait_server(self, name: str) -> None:
        """Until the session has this MCP server's tools: a turn that begins before goes without them. A plugin's server
        is named `plugin:PLUGIN:SERVER`. Needs an idle prompt."""
        ready = re.compile(rf"✔ {re.escape(name)}\s+\d+ tool")
        self.enter("/mcp")
        self.wait(lambda: ready.search(self.screen()), f"{name} is ready")
        # Once: an Escape too many would make the next letter that is typed an Alt key.
        self.keys("Escape")
        self.wait_idle()

    def exit(self) -> None:
        """End it as its user does."""
        self.enter("/exit")
        self.wait(lambda: not self.running, "the session ends")

    def kill(self) -> None:
        """kill -9, which leaves it no time to end its servers and hooks."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait(lambda: not self.running, "the session is gone")

    def stop(self) -> None:
        """The terminal closes: SIGHUP. What doesn't end on that within 5 s is killed."""
        with contextlib.suppress(AssertionError):  # there is no server: it was never started, or did not start
            try:
                if self.running:
                    os.kill(self.pid, signal.SIGHUP)
                    wait_until(lambda: not self.running, "the session ends", 5)
            finally:
                self._tmux("kill-server")
        self._folder.cleanup()

    def __enter__(self) -> ClaudeSession:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
