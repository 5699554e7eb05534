"""Agents that nobody receives for, holds or wakes, and clients whose configuration leads nowhere."""

from __future__ import annotations

import json
import re
import time

import pytest

from meshctl.doctor import agents as agents_check
from meshctl.doctor.facts import Facts
from meshctl.doctor.store import Answers
from tests.doctor.checkup import BIN, Found, bad, checkup, cured, named
from tests.helper import Home, Store, wait_until
from tests.mesh.peer import hosted, receiving


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """The trouble is on this side of the store: one kind of it is enough."""
    with mesh_store.client() as client:
        client.config_set("appendonly", "yes")
    return mesh_store


@pytest.fixture
def here(home: Home) -> Home:
    home.start()
    for name in ("bob", "carol"):
        home.meshctl("register", name)
    wait_until(lambda: receiving(home, "bob") and receiving(home, "carol"), "both receive")
    return home


# --- agents ---


def test_an_agent_whose_stream_is_something_else(here: Home, server: Store, prefix: str) -> None:
    """Its reader's own words, and a command that puts what stands there aside."""
    here.kill()
    with server.client() as client:
        client.set(f"{prefix}:to_bob", "oops")
        here.start()
        wait_until(lambda: "WRONGTYPE" in str((hosted(here, "bob") or {})["trouble"]), "the daemon knows")
        found = named(checkup(here), "bob: the store refused: WRONGTYPE")
        assert here.meshctl("status").startswith("works, but not for bob (for ")
        checkup(here, before=found["next"])
        wait_until(lambda: receiving(here, "bob"), "it goes on")
        assert bad(checkup(here)) == []
        assert client.get(f"{prefix}:to_bob.wrong") == b"oops"


def test_a_group_stream_that_is_something_else(here: Home, server: Store, prefix: str) -> None:
    """Broadcasts reach nobody: said by `status`, by doctor with what mends it, and by two lines of the log."""
    with server.client() as client:
        client.set(f"{prefix}:group", "oops")
        client.client_kill_filter(_type="normal", skipme=True)  # a reader that waits notices nothing, for seconds
        wait_until(lambda: "broadcasts are not received: the store refused: WRONGTYPE" in status(here), "it is said")
        wait_until(lambda: re.match(r"works, but not for broadcasts \(for ", status(here)), "and nothing else is wrong")
        assert not here.json("status")["ok"]
        found = named(checkup(here), "broadcasts are not received: the store refused: WRONGTYPE")
        checkup(here, before=found["next"])
        wait_until(lambda: here.json("status")["ok"], "it goes on")
        assert bad(checkup(here)) == []
    wait_until(lambda: "broadcasts are received again" in here.log(), "and the log says that")
    assert here.log().count("broadcasts are") == 2


def status(home: Home) -> str:
    return home.run("status").stdout


def test_a_lease_that_the_store_has_lost(here: Home, server: Store, prefix: str) -> None:
    with server.client() as client:
        client.delete(f"{prefix}:lease:bob")
    assert bad(cured(here, named(checkup(here), "bob: nobody holds the name in the store"))) == []


def test_a_name_that_another_daemon_has_taken(here: Home, server: Store, prefix: str) -> None:
    """Until the daemon has noticed: found in the store; `register` says so, and `--takeover` takes it back."""
    with server.client() as client:
        client.set(f"{prefix}:lease:bob", "f" * 32)
    found = named(checkup(here), "bob: another daemon holds the name")
    assert found["next"] == "meshctl register bob --takeover"
    assert bad(cured(here, found)) == []
    wait_until(lambda: receiving(here, "bob"), "bob receives")


def test_a_session_that_cannot_be_woken(here: Home) -> None:
    """The rung that failed, why, and how to read the mail meanwhile."""
    with here.rpc() as session:
        session.call("session.open", session="s", name="bob", rungs=["socket"], ready=True)
        session.call("session.failed", rung="socket", why="it is not there")
        here.meshctl("send", "bob", "x", "--from", "carol")
        found = named(checkup(here), "bob: it could not be woken by its socket: it is not there", "warning")
        assert found["next"] == "meshctl inbox bob"


@pytest.mark.parametrize(
    ("armed", "words"),
    [(["hook"], "; it was woken by hook and does not read"), ([], ", and no session is there that could be woken")],
)
def test_mail_that_has_waited_for_long(
    here: Home, armed: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the daemon tells, but for the age of the mail, which no test can wait for."""
    here.meshctl("send", "bob", "x", "--from", "carol")
    wait_until(lambda: (hosted(here, "bob") or {})["unread"] == 1, "it is there")
    for name, value in here.env.items():
        monkeypatch.setenv(name, value)
    facts = Facts()
    assert facts.status is not None
    assert [found.level for found in agents_check.check(facts, Answers(None))] == ["ok"]
    (bob,) = [agent for agent in facts.status["agents"] if agent["name"] == "bob"]
    bob["wake"] |= {"waiting_since": time.time() - 3 * 3600, "armed": armed}
    (found,) = agents_check.check(facts, Answers(None))
    assert found.level == "warning"
    assert found.what == f"bob: 1 unread, the oldest for 3h{words}"
    assert found.next == "meshctl inbox bob"


# --- clients ---


@pytest.fixture
def client_home(home: Home) -> Home:
    """A home with no client's program on PATH: what is there is there by its files."""
    home.env["PATH"] = "/usr/bin:/bin"
    home.env.pop("CLAUDE_CONFIG_DIR", None)
    return home


FILES = {"claude": ".claude.json", "codex": ".codex/config.toml", "gemini": ".gemini/settings.json"}
TITLES = {"claude": "Claude Code", "codex": "Codex", "gemini": "Gemini CLI"}


def said(findings: list[Found]) -> list[str]:
    return [finding["what"] for finding in findings if finding["area"] == "clients"]


@pytest.mark.parametrize("client", FILES)
def test_a_client_that_would_start_a_program_that_is_gone(client_home: Home, client: str) -> None:
    """As after an upgrade that moved it. Without the client, or with the right program, there is nothing to say."""
    home, title = client_home, TITLES[client]
    assert said(checkup(home)) == []
    home.meshctl("install", client, "--yes")
    program = f"{BIN}/meshctl"
    assert said(checkup(home)) == [f"{title} starts {program}"]
    file = home.path / FILES[client]
    file.write_text(file.read_text().replace(program, "/gone/bin/meshctl"))
    found = named(checkup(home), f"{title} would start /gone/bin/meshctl, which is not there")
    assert found["next"] == f"meshctl install {client} --yes"
    assert said(cured(home, found)) == [f"{title} starts {program}"]


def test_a_client_that_starts_another_installation(client_home: Home) -> None:
    home = client_home
    other = home.path / "other" / "meshctl"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    home.meshctl("install", "codex", "--yes")
    file = home.path / ".codex" / "config.toml"
    file.write_text(file.read_text().replace(f"{BIN}/meshctl", str(other)))
    found = named(checkup(home), f"Codex starts another installation's program, {other}", "warning")
    cured(home, found)


def test_hooks_that_were_taken_out(client_home: Home) -> None:
    """Claude Code would start the server, and never be told of mail."""
    home = client_home
    home.meshctl("install", "claude", "--yes")
    settings = home.path / ".claude" / "settings.json"
    data = json.loads(settings.read_text())
    data["hooks"].pop(next(iter(data["hooks"])))
    settings.write_text(json.dumps(data))
    cured(home, named(checkup(home), "Claude Code: what was installed is not what this version installs", "warning"))


@pytest.mark.parametrize("client", FILES)
def test_a_client_s_file_that_cannot_be_read_is_said_and_left(client_home: Home, client: str) -> None:
    home = client_home
    file = home.path / FILES[client]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{[")
    findings = [finding for finding in checkup(home) if finding["area"] == "clients"]
    assert [finding["level"] for finding in findings] == ["warning"]
    assert str(file) in findings[0]["what"]
    assert file.read_text() == "{["


def test_no_client_is_ever_started(client_home: Home) -> None:
    home = client_home
    bin_ = home.path / "bin"
    bin_.mkdir(parents=True)
    for program in ("claude", "codex", "gemini"):
        (bin_ / program).write_text(f"#!/bin/sh\ntouch {home.path}/started\n")
        (bin_ / program).chmod(0o755)
    home.env["PATH"] = f"{bin_}:{home.env['PATH']}"
    notes = [finding for finding in checkup(home) if finding["area"] == "clients"]
    assert [(note["level"], note["what"], note["next"]) for note in notes] == [
        ("note", f"{title}: the mesh is not installed", f"meshctl install {name}") for name, title in TITLES.items()
    ]
    assert not (home.path / "started").exists()
