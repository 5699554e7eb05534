"""logs -f and events -f over rotations and restarts; metrics; a daemon that hangs; a client of another version."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import meshd
from meshd import __version__
from tests.cli.running import Running, running
from tests.helper import Home, Store, a_home, wait_until


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """About the daemon itself: one kind of store is enough."""
    return mesh_store


def until(shown: Running, text: str) -> str:
    """The first line with that text."""
    while text not in (line := shown.line()):
        pass
    return line


# --- logs ---


@pytest.fixture
def log(lone: Home) -> Path:
    path = lone.state / "meshd.log"
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text("".join(f"line {n}\n" for n in range(5)))
    return path


def test_logs_f_misses_nothing_when_the_log_rotates(lone: Home, log: Path) -> None:
    """Not what was written into the old file before it was moved, nor a file that came and went in between."""
    with running(lone, "logs", "-f", "-n", "1") as logs:
        assert logs.line() == "line 4"
        os.kill(logs.process.pid, signal.SIGSTOP)
        with log.open("a") as file:
            file.write("the last of the old\n")
        log.rename(f"{log}.2")
        Path(f"{log}.1").write_text("one that came and went\n")
        log.write_text("the first of the new\n")
        os.kill(logs.process.pid, signal.SIGCONT)
        assert logs.lines(3) == ["the last of the old", "one that came and went", "the first of the new"]
        with log.open("a") as file:
            file.write("and on\n")
        assert logs.line() == "and on"


def test_logs_f_goes_on_in_a_log_that_was_emptied(lone: Home, log: Path) -> None:
    with running(lone, "logs", "-f", "-n", "1") as logs:
        assert logs.line() == "line 4"
        log.write_text("new\n")
        assert logs.line() == "new"


def test_logs_shows_as_many_lines_as_asked_right_after_a_rotation(lone: Home, log: Path) -> None:
    log.rename(f"{log}.1")
    log.write_text("line 5\n")
    assert lone.meshctl("logs", "-n", "3").split("\n") == ["line 3", "line 4", "line 5", ""]
    assert lone.meshctl("logs", "-n", "0") == ""


def test_logs_in_json_are_an_object_a_line(lone: Home, log: Path) -> None:
    """Also of a line that comes in two pieces."""
    with running(lone, "logs", "-f", "-n", "1", "--json") as logs:
        assert json.loads(logs.line()) == {"line": "line 4"}
        for piece in ("li", 'ne "5"\n', "line 6\n"):
            with log.open("a") as file:
                file.write(piece)
        assert [json.loads(line)["line"] for line in logs.lines(2)] == ['line "5"', "line 6"]
    log.unlink()
    done = lone.run("logs", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["data"]["kind"]) == (5, "not_found")


def test_logs_of_a_service_of_systemd_come_from_the_journal(home: Home) -> None:
    """Not from an old file of a daemon that was started by hand."""
    home.env["AGENT_MESH_MANAGED_BY"] = "systemd"
    home.start()
    (home.state / "meshd.log").write_text("old\n")
    programs = home.path / "programs"
    programs.mkdir()
    home.env["PATH"] = str(programs)
    done = home.run("logs", "-f")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.endswith("\n  next: journalctl --user -u meshd -n 50 -f\n")
    journalctl = programs / "journalctl"
    journalctl.write_text('#!/bin/sh\necho "$@"\n')
    journalctl.chmod(0o755)
    assert home.meshctl("logs", "-n", "7") == "--user -u meshd -n 7 --no-pager\n"
    assert home.json("logs", "-n", "7") == {"line": "--user -u meshd -n 7 --no-pager"}


# --- events ---


def test_events_f_says_that_the_daemon_went_and_goes_on_with_the_next(home: Home) -> None:
    """kill -9, then a clean stop: each is said on standard error, and a new snapshot follows; no daemon is started."""
    home.start()
    with running(home, "events", "-f", "--json") as events:
        first = json.loads(events.line())
        for end in (home.kill, home.stop):
            end()
            assert home.run("status").returncode == 3
            home.start()
            again = json.loads(until(events, '"snapshot"'))
            assert again["status"]["pid"] == home.json("status")["pid"] != first["status"]["pid"]
        home.meshctl("register", "bob")
        assert json.loads(until(events, "registered"))["agent"] == "bob"
        events.process.send_signal(signal.SIGINT)
        code, _, err = events.end()
    assert code == 130
    assert err == "meshd has gone; waiting for it to come back\nmeshd is back\n" * 2


# --- metrics ---


def test_metrics_are_text_for_prometheus(home: Home) -> None:
    """As over HTTP; a daemon that does not run is a metric, too."""
    off = home.run("metrics")
    assert off.returncode == 3
    assert "\nmesh_up 0\n" in off.stdout
    home.start()
    home.meshctl("send", "bob", "x")
    home.meshctl("register", "bob")
    wait_until(lambda: 'mesh_agent_unread_messages{agent="bob"} 1\n' in home.meshctl("metrics"), "the mail is counted")
    text = home.meshctl("metrics")
    assert text.startswith("# HELP mesh_up ")
    assert "\nmesh_up 1\n" in text
    assert "\nmesh_store_up 1\n" in text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0 for line in lines)
    assert home.json("metrics")["text"].splitlines()[0] == text.splitlines()[0]


# --- a daemon that hangs ---


def test_status_of_a_daemon_that_hangs_is_an_answer(home: Home) -> None:
    daemon = home.start()
    daemon.send_signal(signal.SIGSTOP)
    try:
        done = home.run("status")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == f"meshd does not answer on {home.socket}\n  next: meshctl doctor\n"
    finally:
        daemon.send_signal(signal.SIGCONT)


# --- two versions ---


@pytest.fixture
def other_version(tmp_path: Path, server: Store, prefix: str) -> Iterator[Home]:
    """A home whose daemon is started from another version's installation; `version` is written there."""
    source, ours = tmp_path / "installation", Path(meshd.__path__[0]).parent
    for name in ("meshd", "meshctl", "packaging"):
        shutil.copytree(ours / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    with a_home(tmp_path / "home", server.url, AGENT_MESH_PREFIX=prefix, PYTHONSAFEPATH="1") as home:
        home.source = source  # type: ignore[attr-defined]
        yield home


def start(home: Home, version: str, **variables: str) -> None:
    source: Path = home.source  # type: ignore[attr-defined]
    (source / "meshd" / "__init__.py").write_text(f'"""meshd"""\n__version__ = "{version}"\n')
    ours, home.env = home.env, home.env | {"PYTHONPATH": str(source)} | variables
    home.start()
    home.env = ours


def test_a_client_says_once_a_command_that_an_older_daemon_should_be_restarted(other_version: Home) -> None:
    """The command works all the same; its output is its own."""
    start(other_version, "0.1.9")
    done = other_version.run("send", "bob", "hi")
    assert done.returncode == 0
    assert done.stdout.startswith("sent ")
    said = f"warning: meshd 0.1.9 runs, older than this meshctl {__version__}: restart it\n"
    assert done.stderr.endswith(said + "  next: meshctl down && meshctl up\n")
    assert done.stderr.count("older than") == 1
    other_version.meshctl("down")
    assert other_version.json("up")["version"] == __version__
    assert "older than" not in other_version.run("send", "bob", "hi").stderr


def test_a_service_is_restarted_as_a_service(other_version: Home) -> None:
    start(other_version, "0.1.9", AGENT_MESH_MANAGED_BY="systemd")
    assert other_version.run("who").stderr.endswith("restart it\n  next: meshctl service restart\n")


def test_an_older_client_is_told_which_one_to_use(other_version: Home) -> None:
    start(other_version, "99.0")
    done = other_version.run("who")
    assert done.returncode == 0
    assert (
        f"warning: meshd 99.0 runs, newer than this meshctl {__version__}: use the one that came with it" in done.stderr
    )
    assert f"next: {sys.executable} -m pip install --upgrade agent-mesh\n" in done.stderr


def test_a_daemon_that_does_not_know_a_command_of_a_newer_client(other_version: Home) -> None:
    source: Path = other_version.source  # type: ignore[attr-defined]
    table = source / "meshd" / "commands" / "status.py"
    text = table.read_text()
    assert '        "metrics",\n' in text
    table.write_text(text.replace('        "metrics",\n', '        "metricks",\n'))
    start(other_version, "0.1.9")
    done = other_version.run("metrics")
    assert done.returncode == 2
    assert "no command 'metrics'" in done.stderr
    assert done.stderr.endswith("restart it\n  next: meshctl down && meshctl up\n")
