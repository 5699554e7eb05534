"""up, down, status, doctor, logs, events, path, version, help: about the daemon itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from meshd import __version__
from meshd.commands.table import COMMANDS, SHOWN
from tests.cli.running import running
from tests.helper import Home, Store, wait_until


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """About the daemon itself: one kind of store is enough."""
    return mesh_store


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(lone: Home, name: str) -> None:
    """Without a daemon, without starting one, on standard output, exit code 0."""
    done = lone.run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: meshctl {name} ")
    assert f"example:\n  meshctl {name}" in done.stdout
    assert "--json" in done.stdout
    assert not os.path.exists(lone.socket)


def test_the_overview_names_every_command(lone: Home) -> None:
    for arguments in (("--help",), ("-h",), ("help",)):
        out = lone.meshctl(*arguments)
        assert all(f"\n  {name} " in out for name in SHOWN)
    assert lone.meshctl("help", "send") == lone.meshctl("send", "--help")
    nothing = lone.run()
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr == lone.meshctl("help")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sned", "bob", "hi"), "meshctl: no command 'sned'\n  did you mean: meshctl send\n"),
        (("xyzzy",), "meshctl: no command 'xyzzy'\n  next: meshctl --help\n"),
        (("send", "bob"), "meshctl send: the following arguments are required: MESSAGE\n"),
        (("send", "bob", "hi", "--loud"), "meshctl send: unrecognized arguments: --loud\n"),
        (("send", "bob", "hi", "there"), "meshctl send: unrecognized arguments: there\n"),
        (("inbox",), "meshctl inbox: the following arguments are required: NAME\n"),
        (("path", "nowhere"), "meshctl path: no path named 'nowhere'\n"),
        (("path", "notify", "a/b"), "meshctl path: not an agent's name: it contains '/'\n"),
    ],
)
def test_a_usage_error_is_said_with_the_next_step_and_starts_nothing(
    lone: Home, arguments: tuple[str, ...], said: str
) -> None:
    done = lone.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert "next: " in done.stderr or "did you mean: " in done.stderr
    assert not os.path.exists(lone.socket)
    assert not lone.state.exists()


def test_the_same_usage_error_is_said_by_a_running_daemon(mesh: Home, lone: Home) -> None:
    for arguments in (("sned", "x"), ("send", "bob"), ("inbox", "--peek")):
        assert mesh.run(*arguments).stderr == lone.run(*arguments).stderr
    assert not os.path.exists(lone.socket)


def test_version(lone: Home) -> None:
    for arguments in (("version",), ("--version",)):
        assert lone.meshctl(*arguments) == f"agent-mesh {__version__}\n"
    assert lone.json("version")["version"] == __version__


def test_the_old_name_is_the_same_program(home: Home) -> None:
    for program in ("meshctl", "agent-mesh"):
        path = os.path.join(os.path.dirname(sys.executable), program)
        found = subprocess.run([path, "who"], env=home.env, capture_output=True, text=True, timeout=30)
        assert (found.returncode, found.stdout) == (0, "(no agents registered)\n"), program


def test_path_prints_each_file_of_the_contract(lone: Home) -> None:
    expected = {
        "socket": lone.socket,
        "cache": str(lone.cache),
        "state": str(lone.state),
        "config": str(lone.config),
        "log": str(lone.state / "meshd.log"),
    }
    for what, path in expected.items():
        assert lone.meshctl("path", what) == f"{path}\n"
    assert lone.json("path") == expected
    assert lone.meshctl("path").splitlines() == [f"{what:7} {path}" for what, path in expected.items()]
    assert lone.meshctl("path", "notify", "bob") == f"{lone.cache}/notify-bob.log\n"
    assert lone.json("path", "pending", "bob") == {"pending": str(lone.state / "agents" / "bob.journal")}
    assert not lone.state.exists()


def test_files_and_folders_are_private(mesh: Home, name: str) -> None:
    mesh.meshctl("send", name, "hello")
    mesh.meshctl("inbox", name)
    for top in (mesh.state, mesh.cache):
        for folder, _, files in os.walk(top):
            assert os.stat(folder).st_mode & 0o777 == 0o700, folder
            for file in files:
                assert os.stat(os.path.join(folder, file)).st_mode & 0o777 == 0o600, file


def test_up_starts_a_daemon_once_and_shows_how_it_is(lone: Home) -> None:
    first = lone.json("up")
    assert first["store"]["state"] == "up"
    assert lone.json("up")["pid"] == first["pid"]
    out = lone.meshctl("up")
    assert re.match(rf"works, for \d+s\nmeshd {re.escape(__version__)} is running \(pid {first['pid']}\), up ", out)
    assert f"socket: {lone.socket}\nstore:  up for " in out
    assert out.endswith("agents: none; meshctl register NAME\n")


def test_down_stops_the_daemon_and_its_store_and_leaves_no_socket(lone: Home) -> None:
    """When `down` returns it is over: process and socket gone, lock free, store ended. Again is no error."""
    found = lone.json("up")
    assert lone.meshctl("down") == "meshd stopped\n"
    with contextlib.suppress(FileNotFoundError):  # whoever inherited it has not asked yet how it ended
        assert Path(f"/proc/{found['pid']}/cmdline").read_text() == ""
    assert not os.path.exists(lone.socket)
    assert not os.path.exists(f"/proc/{found['store']['pid']}/cmdline")
    again = lone.run("down")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "meshd is not running\n")
    assert lone.json("down") == {"running": False}


def test_up_right_after_down_or_during_it_starts_a_new_daemon(home: Home) -> None:
    """Whoever asks for the daemon while the old one is on its way out gets the next one, not an error."""
    home.start()
    with home.rpc() as rpc:
        for k in range(20):
            rpc.call("register", name=f"a{k}")
    old = home.json("status")["pid"]
    with running(home, "down") as down:
        wait_until(lambda: down.process.poll() is not None or home.run("status").returncode == 3, "it is going down")
        new = home.json("up")["pid"]
        assert down.end()[0] == 0
    assert new != old
    home.meshctl("down")
    assert home.json("up")["pid"] not in (old, new)


def test_status_is_a_table_and_json(mesh: Home, name: str) -> None:
    mesh.meshctl("send", name, "hello")
    mesh.meshctl("inbox", name, "--peek")
    out = mesh.meshctl("status")
    assert "AGENT" in out
    row = next(line for line in out.splitlines() if line.startswith(name))
    assert row.split()[1] == "receiving"
    assert row.split()[3:7] == ["1", "0", "0", "0"]
    status = mesh.json("status")
    assert status["socket"] == mesh.socket
    (agent,) = [a for a in status["agents"] if a["name"] == name]
    assert (agent["state"], agent["unread"], agent["trouble"]) == ("receiving", 1, None)


@pytest.mark.parametrize("command", [("status",), ("status", "--json"), ("who", "--json"), ("reload",)])
def test_what_only_looks_never_starts_a_daemon(lone: Home, command: tuple[str, ...]) -> None:
    """Exit code 3, what was tried, and the command that starts it; as JSON one document that says so."""
    done = lone.run(*command)
    assert done.returncode == 3
    assert done.stderr == f"meshd is not running: nothing listens on {lone.socket}\n  next: meshctl up\n"
    if "--json" in command:
        assert json.loads(done.stdout) == {"running": False, "socket": lone.socket}
    else:
        assert done.stdout == ""
    assert not os.path.exists(lone.socket)
    assert not lone.state.exists()


def test_doctor_without_a_daemon_says_what_to_type(lone: Home) -> None:
    done = lone.run("doctor")
    assert done.returncode == 0
    assert f"! meshd is not running: nothing at {lone.socket}\n    next: meshctl up\n" in done.stdout
    assert not os.path.exists(lone.socket)
    assert not lone.state.exists()


def test_doctor_with_a_healthy_daemon_finds_nothing(mesh: Home) -> None:
    done = mesh.run("doctor")
    assert done.returncode == 0
    assert "✗" not in done.stdout
    assert "answers (pid " in done.stdout
    found = mesh.json("doctor")
    assert found["ok"] is True
    assert {finding["level"] for finding in found["findings"]} <= {"ok", "note", "warning"}


def test_doctor_names_what_is_broken_and_the_next_command(lone: Home) -> None:
    lone.config.parent.mkdir(parents=True)
    lone.config.write_text('prefixx = "a"\n')
    done = lone.run("doctor")
    assert done.returncode == 1
    what, next_ = f"✗ {lone.config}: unknown key 'prefixx'", f"${{EDITOR:-vi}} {lone.config}  # did you mean 'prefix'?"
    assert f"{what}\n    next: {next_}\n" in done.stdout
    lone.config.unlink()
    lone.env["AGENT_MESH_REDIS_URL"] = f"unix://{lone.path}/nobody.sock"
    lone.start()
    done = lone.run("doctor", "--json")
    assert done.returncode == 1
    (broken,) = [finding for finding in json.loads(done.stdout)["findings"] if finding["level"] == "error"]
    assert "nobody.sock" in broken["what"]
    assert broken["next"]


def test_doctor_explains_a_socket_that_a_killed_daemon_left(home: Home) -> None:
    home.start()
    home.kill()
    done = home.run("doctor")
    assert done.returncode == 0
    assert "! meshd is not running; a killed one left its socket\n    next: meshctl up\n" in done.stdout


def test_logs_shows_the_last_lines_and_follows(lone: Home) -> None:
    nothing = lone.run("logs")
    assert nothing.returncode == 5
    assert nothing.stderr.endswith("No such file or directory\n  next: meshctl up\n")
    lone.meshctl("up")
    assert f"listens on {lone.socket}" in lone.meshctl("logs")
    assert len(lone.meshctl("logs", "-n", "1").splitlines()) == 1
    with running(lone, "logs", "-f") as logs:
        logs.line()
        assert lone.meshctl("reload") == "configuration read again\n"
        while not logs.line().endswith("configuration read again"):
            pass


def test_events_are_a_snapshot_and_then_what_happens(mesh: Home, name: str) -> None:
    (snapshot,) = [json.loads(line) for line in mesh.meshctl("events", "--json").splitlines()]
    assert snapshot["event"] == "snapshot"
    assert snapshot["status"]["socket"] == mesh.socket
    with running(mesh, "events", "-f", "--json") as events, running(mesh, "events", "--follow") as plain:
        first = json.loads(events.line())
        assert " snapshot" in plain.line()
        mesh.meshctl("register", name)
        second = json.loads(events.line())
        assert (second["event"], second["agent"], second["seq"]) == ("agent.registered", name, first["seq"] + 1)
        assert plain.line().endswith(f"#{second['seq']} agent.registered agent={name}")


def test_a_password_in_the_stores_address_is_never_shown(lone: Home) -> None:
    """Neither in status, nor in the log, nor in an error, nor by doctor, nor to a client that differs."""
    lone.env["AGENT_MESH_REDIS_URL"] = "redis://user:hunter2@127.0.0.1:1/0"
    lone.start()
    shown = [lone.run(*c) for c in (("status",), ("doctor",), ("status", "--json"), ("events", "--json"))]
    shown.append(lone.run("ping", "bob", "--timeout", "0.3", AGENT_MESH_REDIS_URL="redis://:hunter2@elsewhere/0"))
    assert shown[-1].returncode == 4
    assert all("hunter2" not in done.stdout + done.stderr for done in shown)
    assert "hunter2" not in lone.log()
    assert "warning: AGENT_MESH_REDIS_URL here is not what the daemon was started with" in shown[-1].stderr
