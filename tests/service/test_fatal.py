"""What ends a daemon that was not asked to end is in its log, where whoever looks for it looks.

A detached daemon has no standard error: each of these has a log file, as `meshctl up` gives it one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helper import DEADLINE, Home, wait_until


@pytest.fixture
def log(home: Home) -> Path:
    return home.path / "meshd.log"


def make_fail(home: Home, code: str) -> None:
    """Have this code run in the daemon before anything of ours."""
    (home.path / "sitecustomize.py").write_text(code)
    home.env["PYTHONPATH"] = os.pathsep.join([str(home.path), *filter(None, [os.environ.get("PYTHONPATH")])])


FAILING_WORK = """
import asyncio
from meshd.hosting.supervisor import Supervisor

async def run(self, stopping):
    await asyncio.sleep(0)
    raise {error}

Supervisor.run = run
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("LookupError('no such thing')", "LookupError: no such thing"),
        ("ExceptionGroup('two', [LookupError('no such thing'), OSError('nor this')])", "LookupError: no such thing"),
        ("BaseExceptionGroup('two', [LookupError('no such thing'), GeneratorExit()])", "LookupError: no such thing"),
        ("SystemExit('no such thing')", "SystemExit: no such thing"),
        ("asyncio.CancelledError('no such thing')", "CancelledError: no such thing"),
    ],
    ids=["an error", "a group", "a group of more than errors", "an exit", "a cancellation"],
)
def test_what_ends_the_work_is_in_the_log_and_the_exit_code_says_that_it_failed(
    home: Home, log: Path, error: str, said: str
) -> None:
    make_fail(home, FAILING_WORK.format(error=error))
    command = [sys.executable, "-m", "meshd", "--log-file", str(log)]
    done = subprocess.run(command, env=home.env, capture_output=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    text = log.read_text()
    assert "Traceback (most recent call last):" in text
    assert said in text
    assert f"an error that nobody expected has ended meshd: {error.split('(')[0].removeprefix('asyncio.')}" in text
    assert not os.path.exists(home.socket)


def test_whoever_waits_for_a_daemon_that_fails_at_its_start_is_told_where_to_look(home: Home) -> None:
    make_fail(
        home, "from meshd import settings\ndef load(): raise LookupError('no such thing')\nsettings.load = load\n"
    )
    done = home.run("up")
    assert done.returncode == 3
    assert "meshd was not started: an error that nobody expected has ended meshd: LookupError" in done.stderr
    assert "next: meshctl logs" in done.stderr
    assert "LookupError: no such thing" in home.meshctl("logs")


def test_a_thread_that_fails_is_in_the_log_and_ends_nothing(home: Home, log: Path) -> None:
    make_fail(
        home,
        "import sys, threading, time\n"
        "def fail():\n"
        "    while threading.excepthook is threading.__excepthook__: time.sleep(0.01)\n"  # the daemon has its log then
        "    raise LookupError('no such thing')\n"
        "if 'meshd' in sys.orig_argv: threading.Thread(target=fail).start()\n",
    )
    home.start("--log-file", str(log))
    wait_until(lambda: "LookupError: no such thing" in log.read_text(), "it is in the log")
    assert " failed\nTraceback" in log.read_text()
    with home.rpc() as rpc:
        assert rpc.call("hello")


def test_a_crash_of_the_interpreter_leaves_in_the_log_where_it_was(home: Home, log: Path) -> None:
    daemon = home.start("--log-file", str(log))
    daemon.send_signal(signal.SIGSEGV)
    assert daemon.wait(DEADLINE) == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in log.read_text()
    assert "meshd/__main__.py" in log.read_text()
