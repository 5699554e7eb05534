"""The Debian package: installed by apt, enabled by a user, removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.conftest import Building
from tests.boot.diagnosis import assert_well, checkup
from tests.boot.machine import Machine
from tests.boot.mail import TEXTS, inbox, send
from tests.boot.readme import command
from tests.doctor.checkup import bad, named
from tests.helper import wait_until

APT = "DEBIAN_FRONTEND=noninteractive apt-get"


@pytest.fixture(scope="module")
def package(building: Building, machine: Machine) -> str:
    """Its path in the machine."""
    out, _ = building.process.communicate()
    assert building.process.returncode == 0, building.log.read_text()
    return f"/share/{Path(shutil.copy(out.strip(), machine.share)).name}"


@pytest.fixture
def packaged(machine: Machine, package: str) -> Iterator[Machine]:
    """It is installed; ben has never used it."""
    machine.sh(f"{APT} install -y {package}")
    yield machine
    machine.sh(f"{APT} purge -y agent-mesh; rm -rf ~ben/.config ~ben/.cache ~ben/.local")


def test_a_user_enables_it(packaged: Machine) -> None:
    """Nothing starts by itself."""
    with packaged.login("ben") as ben:
        assert ben.run("systemctl --user is-enabled meshd.service meshd.socket").out.split() == ["disabled"] * 2
        assert ben.run("systemctl --user is-active meshd.service meshd.socket").out.split() == ["inactive"] * 2
        findings = checkup(ben)
        named(findings, "not a service that starts at login", "note")
        assert all("meshd is not running" in line for line in bad(findings))
        for page in ("man meshctl", "man meshd", "man agent-mesh.toml"):
            assert "\nNAME\n" in ben.sh(f"MANPAGER=cat {command(page)}")
        ben.sh(command("systemctl --user enable --now meshd.socket meshd.service"))
        assert_well(ben)
        send(ben)
    wait_until(lambda: not packaged.is_served("ben"), "ben's manager ends")
    with packaged.login("ben") as ben:
        wait_until(lambda: ben.run("systemctl --user is-active meshd").code == 0, "it was started by the login")
        assert inbox(ben) == TEXTS
        assert_well(ben)


def test_its_removal_leaves_nothing(machine: Machine, package: str) -> None:
    """But what is the user's; and Python's own cache."""
    files = "find /usr /etc /opt /var/lib/systemd -name '*.pyc' -o -name __pycache__ -o -printf '%p %l\\n' | sort"
    before = machine.sh(files)
    machine.sh(f"{APT} install -y {package}")
    with machine.login("ben") as ben:
        ben.sh("meshctl service install")
        ben.sh(command("meshctl service uninstall"))
        machine.sh(f"{APT} purge -y agent-mesh")
        assert ben.sh("find ~/.config -type l") == ""
    assert machine.sh(files) == before


def test_it_is_removed_from_under_its_users(packaged: Machine) -> None:
    """No login after that finds anything of it that runs, or has failed."""
    with packaged.login("ben") as ben:
        ben.sh("meshctl service install")
        packaged.sh(f"{APT} purge -y agent-mesh")
    wait_until(lambda: not packaged.is_served("ben"), "ben's manager ends")
    with packaged.login("ben") as ben:
        assert ben.run("pgrep -u ben -f meshd").code == 1
        assert ben.sh("systemctl --user list-units --failed --no-legend") == ""
        assert ben.sh("systemctl --user is-active default.target") == "active\n"
