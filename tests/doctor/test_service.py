"""A service that is not as it should be, under a real `systemd --user`; doctor names it, and its command mends it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor.checkup import BIN, bad, checkup, cured, named
from tests.helper import Home, Store, wait_until
from tests.service.user_manager import UserManager, a_manager, a_served_home

NO_LINGER = "the service ends when its user logs out (no linger)"


@pytest.fixture
def served(tmp_path: Path, mesh_store: Store, prefix: str) -> Iterator[Home]:
    """With nothing wrong about its store."""
    with mesh_store.client() as client:
        client.config_set("appendonly", "yes")
    with a_served_home(tmp_path / "home", mesh_store, prefix) as home:
        yield home


@pytest.fixture
def manager(served: Home) -> Iterator[UserManager]:
    """With the service installed."""
    with a_manager(served) as made:
        done = made.inside(f"{BIN}/meshctl", "service", "install")
        assert done.returncode == 0, done.stderr
        yield made


def inside(manager: UserManager) -> list[str]:
    return ["nsenter", "-m", "-t", str(manager.process.pid)]


def test_an_installed_service_is_found_healthy(served: Home, manager: UserManager) -> None:
    """That it has no linger is said, with the command that turns it on; it is the user's choice."""
    findings = checkup(served, through=inside(manager))
    assert bad(findings) == []
    assert named(findings, NO_LINGER, "note")["next"] == "loginctl enable-linger root"


def test_a_service_that_was_stopped_is_not_started_by_looking(served: Home, manager: UserManager) -> None:
    """systemd keeps the socket: doctor does not connect to it."""
    manager.ctl("stop", "meshd.service")
    findings = checkup(served, through=inside(manager))
    assert [f["what"] for f in findings if f["area"] == "daemon"] == [
        "meshd is not running; systemd starts it with the first command"
    ]
    assert manager.show("MainPID") == "0"


def test_not_to_have_a_service_is_a_choice(served: Home, manager: UserManager) -> None:
    """Also where its files are there, as a package leaves them. The command of the note makes it one."""
    words = "not a service that starts at login"
    manager.ctl("disable", "--now", "meshd.socket", "meshd.service")
    findings = checkup(served, through=inside(manager))
    assert [line for line in bad(findings) if "meshd is not running" not in line] == []
    assert bad(cured(served, named(findings, words, "note"), through=inside(manager))) == []
    manager.run("service", "uninstall")
    named(checkup(served, through=inside(manager)), words, "note")


def test_a_unit_that_its_user_has_edited(served: Home, manager: UserManager) -> None:
    unit = manager.unit()
    unit.write_text(unit.read_text().replace("RestartSec=1", "RestartSec=7"))
    manager.ctl("daemon-reload")
    found = named(checkup(served, through=inside(manager)), f"{unit} is edited", "warning")
    assert found["next"] == "meshctl service install --force"
    assert bad(cured(served, found, through=inside(manager))) == []


def test_a_daemon_that_was_started_by_hand_beside_the_service(served: Home, manager: UserManager) -> None:
    manager.ctl("stop", "meshd.socket", "meshd.service")
    daemon = served.start()
    found = named(checkup(served, through=inside(manager)), "was started by hand", "warning")
    assert f"(pid {daemon.pid})" in found["what"]
    assert bad(cured(served, found, through=inside(manager))) == []
    assert daemon.wait(20) == 0
    assert served.json("status")["managed_by"] == "systemd"


def test_a_service_that_fails(served: Home, manager: UserManager) -> None:
    """Its configuration is wrong: both are named, each with its own command."""
    good = served.config.read_text()
    served.config.write_text(good + 'prefixx = "a"\n')
    manager.ctl("restart", "meshd.service")
    wait_until(lambda: manager.show("ActiveState") == "failed", "it has failed")
    findings = checkup(served, through=inside(manager))
    assert sum("unknown key 'prefixx'" in line for line in bad(findings)) == 2
    found = named(findings, "the service has failed: ")
    assert "prefixx" in found["what"]
    served.config.write_text(good)
    assert bad(cured(served, found, through=inside(manager))) == []


def test_a_service_that_is_stopped_by_a_signal(served: Home, manager: UserManager) -> None:
    pid = manager.pid
    os.kill(pid, signal.SIGSTOP)
    found = named(checkup(served, through=inside(manager)), f"meshd (pid {pid}) was stopped by a signal")
    assert bad(cured(served, found, through=inside(manager))) == []


def test_a_shell_with_another_home_than_the_service(served: Home, manager: UserManager, tmp_path: Path) -> None:
    """Its commands would reach a daemon that works with other files: named, both of them."""
    there = str(tmp_path / "elsewhere")
    folder = Path(there, ".config", "systemd", "user")
    folder.parent.mkdir(parents=True)
    folder.symlink_to(manager.unit().parent)
    findings = checkup(served, through=inside(manager), HOME=there)
    daemon = named(findings, "is of another home: its files are in")
    service = named(
        findings, f"the systemd of this user runs with HOME={served.path}, this shell with {there}", "warning"
    )
    for found in (daemon, service):
        assert bad(cured(served, found, through=inside(manager), HOME=there)) == []


def test_a_variable_of_this_shell_that_a_service_does_not_see(served: Home, manager: UserManager) -> None:
    """The command writes it where the service finds it."""
    variables = {"AGENT_MESH_PREFIX": "another"}
    served.config.write_text(f"{served.config.read_text().splitlines()[0]}\n")
    manager.ctl("restart", "meshd.service")
    found = named(checkup(served, through=inside(manager), **variables), "runs with the prefix mesh", "warning")
    assert bad(cured(served, found, through=inside(manager), **variables)) == []
    assert served.json("status")["prefix"] == "another"
