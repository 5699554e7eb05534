"""The service under a real `systemd --user`: start, status, reload, restart, watchdog, stop, uninstall."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time

import pytest

from tests.helper import Home, wait_until
from tests.service.user_manager import UserManager


def test_install_starts_it_and_says_what_it_wrote(served: Home, manager: UserManager) -> None:
    """From nothing to a daemon at work; then the same again, which changes nothing."""
    said = manager.meshctl("service", "install").splitlines()
    pid = manager.pid
    assert said[:5] == [
        f"wrote {manager.unit('meshd.socket')}",
        f"wrote {manager.unit()}",
        "ran systemctl --user daemon-reload",
        "ran systemctl --user enable meshd.service",
        f"started meshd (pid {pid})",
    ]
    assert said[5].startswith("linger is ")
    assert "loginctl enable-linger" in said[5]
    with served.rpc() as rpc:
        hello = rpc.call("hello")
    assert (hello["pid"], hello["managed_by"]) == (pid, "systemd")
    assert stat.S_IMODE(os.stat(served.socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(served.socket)).st_mode) == 0o700
    again = manager.meshctl("service", "install").splitlines()
    assert again[0] == "installed already, and running"
    assert manager.pid == pid
    assert manager.show("UnitFileState") == manager.show("UnitFileState", "meshd.socket") == "enabled"


def test_status_tells_agents_store_and_pending(served: Home, manager: UserManager) -> None:
    manager.meshctl("service", "install")
    served.meshctl("send", "bob", "hello", "--from", "alice", "--expect-reply")
    served.meshctl("register", "bob")
    expected = "2 agents; store up (valkey "
    wait_until(lambda: manager.show("StatusText").startswith(expected), "STATUS names the agents")
    wait_until(lambda: manager.show("StatusText").endswith("1 reply pending, 1 unread"), "and what is pending")
    shown = manager.meshctl("service", "status")
    assert f"systemd: active, pid {manager.pid}: 2 agents; store up (valkey" in shown
    assert f"file: {manager.unit()}\nstarts at login\n" in shown
    facts = json.loads(manager.meshctl("service", "status", "--json"))
    assert (facts["running"], facts["enabled"], facts["pid"]) == (True, True, manager.pid)
    assert set(facts["files"].values()) == {"installed"}


def test_reload_reads_the_configuration_again(served: Home, manager: UserManager) -> None:
    manager.meshctl("service", "install")
    pid = manager.pid
    served.config.write_text(served.config.read_text() + "max_message = 10\n")
    assert manager.ctl("reload", "meshd").returncode == 0
    wait_until(lambda: served.run("send", "bob", "longer than ten").returncode == 2, "the new limit holds")
    assert manager.pid == pid


def test_the_watchdog_ends_a_daemon_that_hangs_and_another_goes_on(served: Home, manager: UserManager) -> None:
    """Stopped in mid-work: it feeds nothing any more. Unread mail is there in the next one, and so is its socket."""
    manager.drop_in("WatchdogSec=2", "TimeoutAbortSec=1")
    manager.meshctl("service", "install")
    served.meshctl("register", "bob")
    served.meshctl("send", "bob", "hello", "--from", "alice")
    old = manager.pid
    time.sleep(2.5)
    assert manager.pid == old, "a daemon that is well is left alone"
    os.kill(old, signal.SIGSTOP)
    assert served.meshctl("inbox", "bob", AGENT_MESH_NO_AUTOSTART="1") == "[DIRECT from alice] hello\n"
    assert manager.pid not in (0, old)
    assert manager.show("NRestarts") == "1"
    assert not os.path.exists(f"/proc/{old}")
    assert "started again once after a failure" in manager.meshctl("service", "status")


def test_a_daemon_that_is_killed_is_started_again_and_finds_its_store(lone: Home) -> None:
    """The embedded store goes on while there is no daemon: systemd ends the daemon only."""
    with UserManager(lone) as manager:
        manager.meshctl("service", "install")
        lone.meshctl("send", "bob", "hello", "--from", "alice")
        old, store = manager.pid, lone.json("up")["store"]["pid"]
        os.kill(old, signal.SIGKILL)
        assert lone.meshctl("inbox", "bob", AGENT_MESH_NO_AUTOSTART="1") == "[DIRECT from alice] hello\n"
        assert manager.pid not in (0, old)
        assert lone.json("status")["store"]["pid"] == store
        manager.meshctl("service", "stop")
        assert not os.path.exists(f"/proc/{store}"), "a stop in order ends the store, too"


def test_a_connection_starts_it(served: Home, manager: UserManager) -> None:
    """Socket activation: the daemon does not run, and the first client is served."""
    manager.meshctl("service", "install")
    assert manager.ctl("stop", "meshd.service").returncode == 0
    assert (manager.pid, os.path.exists(served.socket)) == (0, True)
    assert served.meshctl("who", AGENT_MESH_NO_AUTOSTART="1") == "(no agents registered)\n"
    assert manager.pid


def test_looking_does_not_start_it(served: Home, manager: UserManager) -> None:
    """Neither a person's nor a script's look: systemd keeps the socket, and would start it for whoever connects."""
    manager.meshctl("service", "install")
    manager.ctl("stop", "meshd.service")
    for look in (["status"], ["status", "--json"], ["metrics"], ["who", "--json"]):
        done = manager.run(*look)
        assert (done.returncode, manager.pid) == (3, 0)
        assert done.stderr == "meshd is not running: systemd starts it with the next command\n  next: meshctl up\n"
    manager.run("complete", "inbox", "")
    assert manager.pid == 0
    assert "no agents" in manager.meshctl("who")
    assert manager.meshctl("status").startswith("works, for ")


def test_an_mcp_session_is_served(served: Home, manager: UserManager) -> None:
    """The gateway, its threads and its imports work within what the unit forbids."""
    manager.meshctl("service", "install")
    info = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    asked = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}) + "\n"
    with subprocess.Popen(
        [sys.executable, "-m", "meshctl", "mcp"],
        env=served.env | {"AGENT_MESH_NO_AUTOSTART": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(asked)
        session.stdin.flush()
        answer = json.loads(session.stdout.readline())
    assert answer["result"]["serverInfo"]["name"] == "agent-mesh"


def test_stop_ends_who_waits_and_nothing_starts_it_unasked(served: Home, manager: UserManager) -> None:
    """As `down` without a service; and the path is gone, so that it does not look like a daemon that was killed."""
    manager.meshctl("service", "install")
    served.meshctl("register", "bob")
    with manager.running("listen", "bob") as listening:
        wait_until(lambda: served.json("status")["agents"][0]["sessions"], "it waits")
        assert manager.meshctl("service", "stop") == "stopped meshd\n"
        code, _, err = listening.end()
    assert (code, err) == (4, "the daemon was stopped before this was answered\n  next: meshctl status\n")
    assert (manager.pid, os.path.exists(served.socket)) == (0, False)
    assert manager.meshctl("service", "status", code=3).endswith("  next: meshctl service start\n")
    assert manager.run("status").returncode == 3
    assert manager.meshctl("service", "stop") == "stopped meshd\n"
    assert manager.meshctl("service", "start") == f"started meshd (pid {manager.pid})\n"
    assert manager.meshctl("service", "start") == "running already\n"


def test_stop_by_systemctl_tells_who_waits(served: Home, manager: UserManager) -> None:
    """The daemon asks its manager what is meant: this is no restart, so who waits is told and does not come back."""
    manager.meshctl("service", "install")
    served.meshctl("register", "bob")
    with manager.running("listen", "bob") as listening:
        wait_until(lambda: served.json("status")["agents"][0]["sessions"], "it waits")
        assert manager.ctl("stop", "meshd.socket", "meshd.service").returncode == 0
        code, _, err = listening.end()
    assert (code, err) == (4, "the daemon was stopped before this was answered\n  next: meshctl status\n")
    assert manager.pid == 0


@pytest.mark.parametrize("how", ["service restart", "systemctl"])
def test_who_waits_is_not_disturbed_by_a_restart(served: Home, manager: UserManager, how: str) -> None:
    manager.meshctl("service", "install")
    served.meshctl("register", "bob")
    with manager.running("listen", "bob", "--timeout", "30") as listening:
        wait_until(lambda: served.json("status")["agents"][0]["sessions"], "it waits")
        old = manager.pid
        if how == "systemctl":
            assert manager.ctl("restart", "meshd").returncode == 0
        else:
            assert manager.meshctl("service", "restart") == f"restarted meshd (pid {manager.pid})\n"
        assert manager.pid not in (0, old)
        served.meshctl("send", "bob", "hello", "--from", "alice")
        assert listening.end()[:2] == (0, "[DIRECT from alice] hello\n")


def test_one_that_hangs_is_stopped_at_once(served: Home, manager: UserManager) -> None:
    """It is not asked first: systemd has the means, and waits as long as the unit allows, and no longer."""
    manager.meshctl("service", "install")
    os.kill(manager.pid, signal.SIGSTOP)
    began = time.monotonic()
    assert manager.meshctl("service", "stop") == "stopped meshd\n"
    assert time.monotonic() - began < 20
    assert manager.pid == 0


@pytest.mark.parametrize("how", ["service restart", "service start", "service install", "send bob hello"])
def test_a_socket_whose_path_was_taken_away_is_made_anew(served: Home, manager: UserManager, how: str) -> None:
    """systemd goes on listening where nobody can come, and calls that active."""
    manager.meshctl("service", "install")
    os.unlink(served.socket)
    lost = f"nothing listens on {served.socket}\n  next: meshctl service restart\n"
    assert manager.meshctl("service", "status", code=3).endswith(lost)
    manager.meshctl(*how.split())
    with served.rpc() as rpc:
        assert rpc.call("hello")["pid"] == manager.pid


def test_down_ends_one_by_hand_that_has_taken_the_path_of_the_socket(served: Home, manager: UserManager) -> None:
    """The manager's socket is let go only where nobody is behind the path: it would take that with it."""
    manager.meshctl("service", "install")
    manager.ctl("stop", "meshd.service")
    daemon = served.start()
    by_hand = f"systemd: inactive\n.*a daemon that was started by hand runs \\(pid {daemon.pid}\\)\n"
    assert re.search(by_hand, manager.meshctl("service", "status", code=3), re.DOTALL)
    said = f"the service does not run; a daemon that was started by hand does (pid {daemon.pid})\n"
    assert manager.meshctl("service", "stop") == f"{said}  next: meshctl down\n"
    assert manager.meshctl("down") == "meshd stopped\n"
    assert daemon.wait(10) == 0
    assert manager.run("send", "bob", "hello").returncode == 0
    with served.rpc() as rpc:
        assert rpc.call("hello")["managed_by"] == "systemd"


def test_down_says_that_it_is_a_service(served: Home, manager: UserManager) -> None:
    """The socket goes with it: else the next connection, even one that only looks, would start it again."""
    manager.meshctl("service", "install")
    done = manager.run("down")
    assert (done.returncode, done.stdout) == (0, "meshd stopped\n")
    assert done.stderr.startswith("it is a service of systemd: the next login starts it again, and so does a command ")
    assert (manager.pid, os.path.exists(served.socket)) == (0, False)
    again = manager.run("down")
    assert (again.returncode, again.stderr) == (0, "meshd is not running\n")
    assert manager.run("status").returncode == 3


def test_a_command_that_needs_the_daemon_starts_the_service(served: Home, manager: UserManager) -> None:
    manager.meshctl("service", "install")
    manager.meshctl("down")
    clients = [manager.begin("register", f"a{k}") for k in range(4)]
    assert [(client.communicate(timeout=60)[0], client.returncode) for client in clients] == [
        (f"registered a{k}\n", 0) for k in range(4)
    ]
    with served.rpc() as rpc:
        assert rpc.call("hello")["pid"] == manager.pid != 0


def test_uninstall_removes_its_own_files_and_no_others(served: Home, manager: UserManager) -> None:
    folder = manager.unit().parent
    before = {path for path in folder.rglob("*") if path.name not in ("meshd.service.d", "test.conf")}
    theirs = folder / "theirs.service"
    folder.mkdir(parents=True, exist_ok=True)
    theirs.write_text("[Service]\nExecStart=/bin/true\n")
    manager.meshctl("service", "install")
    served.meshctl("send", "bob", "hello", "--from", "alice")
    said = manager.meshctl("service", "uninstall").splitlines()
    assert said[0] == "stopped meshd"
    assert {f"removed {manager.unit('meshd.socket')}", f"removed {manager.unit()}"} <= set(said)
    assert said[-1] == f"messages, inboxes and settings stay: {served.state}"
    left = {path for path in folder.rglob("*") if path.name not in ("meshd.service.d", "test.conf") and path.is_file()}
    assert left - before == {theirs}
    assert manager.show("LoadState") == "not-found"
    assert manager.meshctl("service", "uninstall") == "not installed\n"
    assert manager.meshctl("service", "status", code=1) == "not installed\n  next: meshctl service install\n"
    assert manager.run("service", "start").returncode == 3
    # Without the service everything is as before it.
    assert manager.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"
    with served.rpc() as rpc:
        assert rpc.call("hello")["managed_by"] == "user"


def test_a_configuration_that_cannot_work_is_said_and_not_tried_for_ever(served: Home, manager: UserManager) -> None:
    manager.meshctl("service", "install")
    manager.meshctl("service", "stop")
    good = served.config.read_text()
    served.config.write_text("nonsense = 1\n")
    done = manager.run("service", "start")
    assert done.returncode == 3
    assert "unknown key 'nonsense'" in done.stderr
    cure = done.stderr.partition("  next: ")[2]
    assert cure.startswith("known: redis_url, ")
    assert cure.endswith("; then: meshctl service start\n")
    assert manager.show("NRestarts") == "0"
    status = manager.meshctl("service", "status", code=3)
    assert "systemd: failed: " in status
    assert status.endswith(f"  next: {cure}")
    done = manager.run("send", "bob", "hello")
    assert done.returncode == 3
    assert "unknown key 'nonsense'" in done.stderr
    served.config.write_text(good)
    assert manager.run("send", "bob", "hello").returncode == 0
    with served.rpc() as rpc:
        assert rpc.call("hello")["managed_by"] == "systemd"
