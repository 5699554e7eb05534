"""The daemon is there when it is needed: started once, detached, again after a kill, and never unasked."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.cli.running import running
from tests.helper import Home, wait_until

MESHCTL = [sys.executable, "-m", "meshctl"]


def pid_of(home: Home) -> int:
    """The daemon's pid, from its lock, which is empty for a moment while it is taken."""
    return int(wait_until(lambda: Path(home.socket + ".lock").read_text(), "the lock names its holder"))


def kill(home: Home) -> int:
    """kill -9 of whatever daemon runs. Returns its pid once it is gone."""
    pid = pid_of(home)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}/exe"), "the daemon is gone")
    return pid


def test_the_first_command_that_needs_the_daemon_starts_it(home: Home) -> None:
    assert home.meshctl("who") == "(no agents registered)\n"
    assert home.json("status")["pid"] == pid_of(home)


def test_the_daemon_has_a_session_of_its_own_and_no_terminal(home: Home) -> None:
    """The client's shell is hung up, its whole group gets SIGHUP, its output is closed: the daemon lives."""
    script = 'trap "" TERM; "$@"; kill -HUP 0'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *MESHCTL, "up"],
        env=home.env,
        capture_output=True,
        timeout=30,
        start_new_session=True,
    )
    assert done.returncode == -signal.SIGHUP
    pid = pid_of(home)
    assert os.getsid(pid) == pid
    tty = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])
    assert tty == 0
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
    assert home.json("status")["pid"] == pid


def test_a_folder_of_the_daemons_name_where_the_user_stands_is_not_run(home: Home, tmp_path: Path) -> None:
    package = tmp_path / "meshd"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the wrong one')")
    bin_dir = os.path.dirname(sys.executable)
    done = subprocess.run([f"{bin_dir}/meshctl", "up"], env=home.env, cwd=tmp_path, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_relative_paths_are_the_callers(home: Home, tmp_path: Path) -> None:
    """The daemon that is started runs in another folder."""
    (tmp_path / "url").write_text(home.env.pop("AGENT_MESH_REDIS_URL"))
    home.env |= {"AGENT_MESH_SOCKET": "s/meshd.sock", "AGENT_MESH_REDIS_URL_FILE": "url"}
    for command in ("up", "status", "down"):
        done = subprocess.run([*MESHCTL, command], env=home.env, cwd=tmp_path, capture_output=True, timeout=30)
        assert done.returncode == 0, done
    assert (tmp_path / "s" / "meshd.sock.lock").exists()


def test_eight_at_once_start_one_daemon(home: Home) -> None:
    clients = [home.begin("register", f"a{k}") for k in range(8)]
    said = [client.communicate(timeout=30) for client in clients]
    assert [(c.returncode, out) for c, (out, _) in zip(clients, said, strict=True)] == [
        (0, f"registered a{k}\n") for k in range(8)
    ], said
    assert len(home.json("status")["agents"]) == 8
    assert (home.state / "meshd.log").read_text().count("listens on") == 1


@pytest.mark.parametrize("command", [("register", "bob"), ("send", "bob", "hi"), ("listen", "bob"), ("who",)])
def test_no_autostart_forbids_it(lone: Home, command: tuple[str, ...]) -> None:
    done = lone.run(*command, AGENT_MESH_NO_AUTOSTART="1")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"meshd is not running: nothing listens on {lone.socket}\n  next: meshctl up\n"
    assert not os.path.exists(lone.socket)
    assert not lone.state.exists()


@pytest.mark.parametrize("value", ["true", "YES", "on"])
def test_no_autostart_in_other_words(lone: Home, value: str) -> None:
    assert lone.run("who", AGENT_MESH_NO_AUTOSTART=value).returncode == 3
    assert not os.path.exists(lone.socket)


def test_an_address_without_http_is_refused(lone: Home) -> None:
    done = lone.run("serve", "--port", "17801")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "meshctl serve: --host and --port are for HTTP\n  next: meshctl serve --http\n"


def test_no_autostart_holds_in_mid_command_too(home: Home) -> None:
    home.start()
    with running(home, "listen", "bob", AGENT_MESH_NO_AUTOSTART="1") as listening:
        wait_until(lambda: "bob" in home.meshctl("status"), "it listens")
        home.kill()
        code, out, err = listening.end()
    assert (code, out) == (4, "")
    assert err.startswith("meshd went away before it answered: nothing listens on ")
    assert home.run("status").returncode == 3


def impatient(home: Home, *arguments: str, patience: float) -> subprocess.Popen[str]:
    """`meshctl` with less patience, in the background."""
    code = f"import sys; from meshctl import __main__ as m; m.PATIENCE = {patience}; sys.exit(m.main())"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_daemon_that_hangs_is_not_waited_for_for_ever(home: Home) -> None:
    """What is asked may be done later: the id makes it safe to ask again."""
    daemon = home.start()
    home.meshctl("register", "bob")
    daemon.send_signal(signal.SIGSTOP)
    for arguments in (("inbox", "bob"), ("send", "bob", "hi", "--id", "mine"), ("send", "bob", "hi")):
        process = impatient(home, *arguments, patience=0.2)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (4, "")
        assert err.startswith(f"meshd does not answer on {home.socket}, and ")
        assert err.endswith("\n  next: meshctl doctor\n")
        assert arguments[0] != "inbox" or "the outcome is unknown" in err
    daemon.send_signal(signal.SIGCONT)
    found = re.search(r"with --id ([0-9a-f]{32}) cannot duplicate it", err)
    assert found is not None
    for message_id in ("mine", found[1]):
        assert home.meshctl("send", "bob", "hi", "--id", message_id) == f"sent {message_id}\n"
    assert sorted(m["id"] for m in home.json("inbox", "bob")["messages"]) == sorted(["mine", found[1]])


def test_a_daemon_that_lives_is_waited_for_for_as_long_as_it_takes(home: Home) -> None:
    home.start()
    process, began, patience = impatient(home, "listen", "bob", patience=2.0), time.monotonic(), 2.0
    wait_until(lambda: time.monotonic() - began > 1.5 * patience, "it was asked whether it lives")
    assert process.poll() is None
    home.meshctl("send", "bob", "hi", "--from", "alice")
    assert process.communicate(timeout=20)[0] == "[DIRECT from alice] hi\n"


def test_a_killed_daemon_leaves_a_socket_that_the_next_start_handles(home: Home) -> None:
    home.meshctl("register", "bob")
    old = kill(home)
    assert os.path.exists(home.socket)
    assert home.run("status").returncode == 3
    home.meshctl("send", "bob", "hello", "--from", "alice")
    assert home.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"
    assert pid_of(home) != old


def test_the_embedded_store_outlives_a_killed_daemon_and_is_found_again(lone: Home) -> None:
    lone.meshctl("send", "bob", "hello", "--from", "alice")
    store = lone.json("status")["store"]["pid"]
    kill(lone)
    assert lone.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"
    assert lone.json("status")["store"]["pid"] == store


def test_a_listen_survives_the_daemon_and_hears_what_comes_after(home: Home) -> None:
    home.meshctl("register", "bob")
    with running(home, "listen", "bob", "--timeout", "30") as listening:
        wait_until(lambda: home.json("status")["agents"][0]["sessions"], "it is attached")
        old = kill(home)
        wait_until(lambda: pid_of(home) != old, "the client has started the next one")
        home.meshctl("send", "bob", "hello", "--from", "alice")
        assert listening.end()[:2] == (0, "[DIRECT from alice] hello\n")


def test_sends_while_the_daemon_is_killed_again_and_again_arrive_once_each(home: Home) -> None:
    """Each client repeats its call at the next daemon under the same id. Every one ends with `sent`."""
    home.meshctl("register", "bob")
    stop = threading.Event()
    kills, pause = 0, 0.15

    def killer() -> None:
        nonlocal kills
        while not stop.wait(pause):
            try:
                os.kill(pid_of(home), signal.SIGKILL)
                kills += 1
            except (OSError, ValueError):  # none at the moment
                pass

    thread = threading.Thread(target=killer)
    thread.start()
    sent: set[str] = set()
    unknown: set[str] = set()
    try:
        for k in range(12):
            done = home.run("send", "bob", f"m{k}", "--from", "alice", "--id", f"id{k}")
            # A client that met three daemons and saw them all killed says that it does not know.
            (sent if done.returncode == 0 else unknown).add(f"m{k}")
            pause *= 1 if done.returncode == 0 else 1.5  # a daemon takes longer to start than it has here
            assert done.returncode in (0, 3, 4), done
    finally:
        stop.set()
        thread.join()
    for k in range(12):
        if f"m{k}" in unknown:
            home.meshctl("send", "bob", f"m{k}", "--from", "alice", "--id", f"id{k}")
    wait_until(lambda: len(home.json("inbox", "bob", "--peek")["messages"]) >= 12, "all are there")
    received = [message["text"] for message in home.json("inbox", "bob")["messages"]]
    assert sorted(received) == sorted(f"m{k}" for k in range(12))
    assert kills > 0
    assert sent


def test_down_ends_waiting_clients_and_none_of_them_starts_the_daemon_again(home: Home) -> None:
    home.start()
    commands = [("monitor", "bob"), ("listen", "carol"), ("watch", "dave"), ("request", "x", "?")]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running(home, *command)) for command in commands]
        wait_until(lambda: sum(s["sessions"] for s in home.json("status")["agents"]) == 3, "all are attached")
        home.meshctl("down")
        for client in clients:
            code, _, err = client.end()
            assert code == 4
            assert err.endswith("the daemon was stopped before this was answered\n  next: meshctl status\n")
    assert home.run("status").returncode == 3
    assert not os.path.exists(home.socket)
