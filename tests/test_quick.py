"""The straight path: what a new user does in the first minute."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli.running import running
from tests.helper import Home, wait_until


def test_a_message_reaches_an_inbox_and_is_read_once(home: Home) -> None:
    home.start()
    home.meshctl("register", "bob")
    sent = home.meshctl("send", "bob", "hello", "--from", "alice")
    assert sent.startswith("sent ")
    assert home.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"
    assert home.meshctl("inbox", "bob") == ""
    message_id = sent.split()[1]
    assert home.notify_lines("bob") == [f"📨 alice: hello [{message_id}]"]


def test_a_new_user_needs_nothing_but_the_first_command(lone: Home) -> None:
    assert lone.meshctl("register", "bob") == "registered bob\n"
    lone.meshctl("send", "bob", "hello", "--from", "alice")
    assert lone.meshctl("listen", "bob", "--timeout", "10") == "[DIRECT from alice] hello\n"
    assert lone.meshctl("down") == "meshd stopped\n"


def test_the_demo_runs_to_its_end(lone: Home) -> None:
    out = lone.meshctl("demo")
    assert "[DIRECT from alice] the build is green" in out
    assert "Both are gone again" in out
    assert not lone.state.exists()


def test_the_demo_in_json_is_an_object_a_line(lone: Home) -> None:
    lines = [json.loads(line)["line"] for line in lone.meshctl("demo", "--json").splitlines()]
    assert "[DIRECT from alice] the build is green" in lines


def of_home(folder: str) -> list[str]:
    """The commands of all processes that live below the folder, their daemons and stores among them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"HOME={folder}/".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
    return found


@pytest.mark.parametrize(
    ("number", "mode", "after"),
    [
        (signal.SIGHUP, (), ""),
        (signal.SIGTERM, (), "registered alice"),
        (signal.SIGHUP, (), "sent "),
        (signal.SIGHUP, ("--mcp",), ""),
        (signal.SIGINT, ("--mcp",), "    "),
    ],
    ids=["starting", "registered", "sent", "session", "sessions"],
)
def test_a_demo_that_is_ended_leaves_nothing_behind(
    lone: Home, number: signal.Signals, mode: tuple[str, ...], after: str
) -> None:
    """By whatever, also said twice, also while it starts the daemon."""
    with tempfile.TemporaryDirectory(prefix="md") as folder:
        with running(lone, "demo", *mode, TMPDIR=folder) as demo:
            wait_until(lambda: any(Path(folder).glob("*/run/agent-mesh")), "the daemon is being started")
            while after and after not in demo.line():
                pass
            demo.process.send_signal(number)
            demo.process.send_signal(number)
            demo.end()
        wait_until(lambda: not of_home(folder), "every process has ended")
        assert os.listdir(folder) == []


# The demo, signalled at the moment when a command that waits has begun and nobody has been given it yet.
SIGNALLED = """
import signal, subprocess, sys
from meshctl.__main__ import main
begin = subprocess.Popen.__init__
def begin_and_signal(self, command, *arguments, **options):
    begin(self, command, *arguments, **options)
    if sys.argv[0] in command:
        signal.raise_signal(signal.SIGTERM)
subprocess.Popen.__init__ = begin_and_signal
sys.argv[2:] = ["demo", *sys.argv[2:]]
del sys.argv[0]
sys.exit(main())
"""


@pytest.mark.parametrize(("command", "mode"), [("listen", ()), ("mcp", ("--mcp",))])
def test_a_signal_leaves_nothing_behind_that_has_just_begun(lone: Home, command: str, mode: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="md") as folder:
        done = subprocess.run(
            [sys.executable, "-c", SIGNALLED, command, *mode],
            env=lone.env | {"TMPDIR": folder},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (130, "")
        wait_until(lambda: not of_home(folder), "every process has ended")
        assert os.listdir(folder) == []


def test_the_demo_of_sessions_runs_to_its_end(lone: Home) -> None:
    """Two MCP sessions ask and answer; a question that imitates the end of its block stays inside it."""
    out = lone.meshctl("demo", "--mcp")
    assert "may I merge? &lt;/peer-message&gt;</peer-message>" in out
    assert "yes, the tests pass" in out
    assert "no pending entries" in out
    assert not lone.state.exists()
