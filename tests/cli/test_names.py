"""register, deregister and who."""

from __future__ import annotations

import os
import socket

import pytest

from tests.cli.running import running
from tests.helper import Home, Store, wait_until


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """Names and tables: one kind of store is enough."""
    return mesh_store


def entry(home: Home, name: str, *options: str) -> dict[str, object] | None:
    found = [agent for agent in home.json("who", *options)["agents"] if agent["agent"] == name]
    return found[0] if found else None


def test_register_and_deregister_say_what_they_did(mesh: Home, name: str) -> None:
    assert mesh.meshctl("register", name) == f"registered {name}\n"
    assert mesh.meshctl("register", name) == f"registered {name}\n"  # again is no error
    assert mesh.meshctl("deregister", name) == f"deregistered {name}\n"
    done = mesh.run("deregister", name)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == f"{name} is not hosted here\n  next: meshctl who\n"


def test_register_as_json(mesh: Home, name: str) -> None:
    mesh.meshctl("send", name, "waiting")
    assert mesh.json("register", name, "--role", "tester")["role"] == "tester"
    assert mesh.json("deregister", name) == {"name": name}


def test_who_is_a_table_of_the_live(home: Home) -> None:
    daemon = home.start()
    assert home.meshctl("who") == "(no agents registered)\n"
    assert home.json("who") == {"agents": []}
    home.meshctl("register", "bob", "--role", "reviews code")
    home.meshctl("send", "bob", "hello")
    wait_until(lambda: entry(home, "bob")["unread"] == 1, "the message is counted")  # type: ignore[index]
    header, row = home.meshctl("who").splitlines()
    columns = ["NAME", "ROLE", "HOST", "PID", "UP", "AGE", "SESSION", "UNREAD", "WAKE", "LAST WAKE"]
    assert header.split() == " ".join(columns).split()
    assert row.startswith("bob   reviews code  ")
    assert row.split()[3:5] == [socket.gethostname(), str(daemon.pid)]
    assert row.split()[-4:] == ["no", "1", "notify", "-"]


def test_who_tells_of_an_attached_session(home: Home) -> None:
    home.start()
    with running(home, "listen", "bob"):
        wait_until(lambda: (entry(home, "bob") or {}).get("session"), "the session shows")
    wait_until(lambda: not entry(home, "bob")["session"], "it is gone when the client is")  # type: ignore[index]


def test_who_all_also_shows_names_that_are_gone(mesh: Home, name: str) -> None:
    mesh.meshctl("register", name)
    mesh.meshctl("deregister", name)
    assert entry(mesh, name) is None
    gone = entry(mesh, name, "--all")
    assert gone is not None
    assert gone["live"] is False
    row = next(line for line in mesh.meshctl("who", "--all").splitlines() if line.startswith(name))
    assert "(gone for " in row


def test_a_name_that_another_daemon_holds_is_not_allowed(home: Home, other: Home) -> None:
    """Exit code 7, saying who holds it and what moves it; the mail stays where it is."""
    daemon = home.start()
    other.start()
    home.meshctl("register", "bob")
    for command in (("register", "bob"), ("inbox", "bob"), ("listen", "bob"), ("monitor", "bob"), ("watch", "bob")):
        done = other.run(*command)
        assert (done.returncode, done.stdout) == (7, "")
        assert done.stderr.startswith(f"bob is held by the daemon on {socket.gethostname()} (pid {daemon.pid})\n")
        assert "next: meshctl register bob --takeover moves it here" in done.stderr
    other.meshctl("send", "bob", "hello", "--from", "alice")
    assert home.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"


def test_a_monitor_ends_when_another_daemon_takes_its_name_over(home: Home, other: Home) -> None:
    """The old daemon's monitor says why it ended, instead of waiting in vain; the mail goes on at the new one."""
    home.start()
    other.start()
    with running(home, "monitor", "bob") as monitor:
        wait_until(lambda: (entry(home, "bob") or {}).get("session"), "the monitor is attached")
        home.meshctl("send", "bob", "before", "--from", "alice")
        assert monitor.line() == "[DIRECT from alice] before"
        other.meshctl("register", "bob", "--takeover")
        code, _, err = monitor.end()
    assert code == 7
    assert err == "bob: another daemon took it over\n  next: meshctl register bob --takeover moves it here\n"
    other.meshctl("send", "bob", "after", "--from", "alice")
    assert other.meshctl("inbox", "bob") == "[DIRECT from alice] after\n"


@pytest.mark.parametrize("role", ["x" * 101, "two\nlines", "\x1b[31mred"])
def test_a_role_that_could_spoil_the_table_is_refused(mesh: Home, name: str, role: str) -> None:
    done = mesh.run("register", name, "--role", role)
    assert (done.returncode, done.stdout) == (2, "")
    assert "a role is at most 100 printable characters\n  next: " in done.stderr
    assert name not in mesh.meshctl("status")


def test_hosted_agents_come_back_after_a_restart_with_their_roles(home: Home) -> None:
    home.start()
    for name in ("bob", "carol"):
        home.meshctl("register", name, "--role", f"role of {name}")
    home.meshctl("register", "gone")
    home.meshctl("deregister", "gone")
    assert home.stop() == 0
    home.start()
    wait_until(lambda: len(home.json("who")["agents"]) == 2, "both are back")
    assert [(a["agent"], a["role"]) for a in home.json("who")["agents"]] == [
        ("bob", "role of bob"),
        ("carol", "role of carol"),
    ]
    home.kill()
    home.start()
    home.meshctl("send", "bob", "hello")
    wait_until(lambda: home.notify_lines("bob"), "bob receives again")
    assert os.path.exists(home.state / "hosted.json")
