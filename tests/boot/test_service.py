"""The daemon as a service, from installation over logout and login to the next boot."""

from __future__ import annotations

import json
import shlex

from tests.boot.diagnosis import assert_well
from tests.boot.machine import Login, Machine
from tests.boot.mail import TEXTS, inbox, send
from tests.boot.readme import command
from tests.helper import wait_until

# What the journal has of a service that ends in order, and nothing between.
STOPPED = [
    "Stopping meshd.service - agent-mesh: messages between coding agents...",
    "meshd: meshd stopped",
    "Stopped meshd.service - agent-mesh: messages between coding agents.",
]


def status_text(session: Login) -> str:
    return session.sh("systemctl --user show --value --property StatusText meshd").strip()


def main_pid(session: Login) -> int:
    return int(session.sh("systemctl --user show --value --property MainPID meshd"))


def assert_ended_in_order(machine: Machine) -> None:
    """systemd told the daemon, the daemon told the store, and nobody was killed."""
    assert machine.journal("ann")[-3:] == STOPPED
    store = (machine.home("ann") / ".local/state/agent-mesh/store/valkey.log").read_text()
    assert store.endswith("is now ready to exit, bye bye...\n")


def test_quick_start(ann: Login, fresh: Machine) -> None:
    """Without a service the daemon starts with the first command, and goes on when its user has logged out."""
    assert "meshd is not running" in ann.sh("meshctl doctor")
    ann.sh(command("meshctl register bob --role reviewer"))
    ann.sh(command('meshctl send bob "the build is green" --from alice'))
    pid = json.loads(ann.sh("meshctl status --json"))["pid"]
    ann.logout()
    with fresh.login("ann") as again:
        assert "[DIRECT from alice] the build is green\n" in again.sh(command("meshctl inbox bob"))
        assert "reviewer" in again.sh(command("meshctl who"))
        assert json.loads(again.sh("meshctl status --json"))["pid"] == pid
        assert_well(again)


def test_changes_of_ones_own(served: Login) -> None:
    """As the README has them made: the service runs with them, and they are no edited file."""
    editor = r"""printf '[Service]\nNice=7\n' > "$1" """
    served.sh(f"echo {shlex.quote(editor)} > ~/editor")
    edit = command("systemctl --user edit meshd")
    served.sh(f"SYSTEMD_EDITOR='sh /home/ann/editor' script -qec '{edit}' /dev/null")  # it wants a terminal
    served.sh(command("meshctl service restart"))
    assert served.sh(f"ps -o nice= -p {main_pid(served)}").strip() == "7"
    assert served.sh("meshctl service install").startswith("installed already, and running\n")
    assert_well(served)


def test_an_installed_service_runs(ann: Login) -> None:
    """systemd was told that it is ready, and what it does; nothing is wrong with it; its log can be read."""
    assert "\nstarted meshd (pid " in ann.sh(command("meshctl service install"))
    said = ann.sh(command("meshctl service status"))
    assert said.startswith("systemd: active, pid ")
    assert "\nstarts at login\n" in said
    assert ann.sh("systemctl --user show --value --property Type,ActiveState meshd").split() == ["notify", "active"]
    wait_until(lambda: "; store up (valkey " in status_text(ann), "its status is told")
    assert status_text(ann).startswith("0 agents; ")
    assert_well(ann)
    for reading in ("meshctl logs", "journalctl --user -u meshd"):
        assert "meshd.store: store up: embedded" in ann.sh(reading)


def test_logout_ends_it_in_order_and_login_starts_it(ann: Login, fresh: Machine) -> None:
    """The store ends last. The next login finds what was sent before, once."""
    ann.sh("meshctl service install")
    send(ann)
    ann.logout()
    wait_until(lambda: not fresh.is_served("ann"), "ann's manager ends")
    assert fresh.try_sh("pgrep -u ann").code == 1, "nothing of ann's runs"
    assert_ended_in_order(fresh)
    with fresh.login("ann") as again:
        wait_until(lambda: "store up" in status_text(again), "it was started by the login")
        assert inbox(again) == TEXTS
        assert inbox(again) == []
        assert_well(again)


def test_with_linger_it_goes_on(ann: Login, fresh: Machine) -> None:
    """After logout, and over a reboot before anybody has logged in; unread mail is there."""
    said = ann.sh(command("meshctl service install --linger"))
    assert "\nran loginctl enable-linger ann\n" in said
    assert "\nlinger is on: " in said
    send(ann)
    pid = main_pid(ann)
    ann.logout()
    wait_until(lambda: fresh.sh("loginctl show-user --value --property State ann") == "lingering\n", "ann is away")
    assert fresh.sh(f"ps -o args= -p {pid}").endswith(" -m meshd\n")
    fresh.reboot()
    assert fresh.journal("ann", "--boot=-1")[-3:] == STOPPED
    assert fresh.sh("loginctl list-sessions --no-legend") == ""
    wait_until(lambda: "store up" in "".join(fresh.journal("ann", "--boot")), "it runs")
    with fresh.login("ann") as again:
        assert inbox(again) == TEXTS
        assert "\ngoes on after logout\n" in again.sh("meshctl service status")
        assert_well(again)


def test_linger_that_may_not_be_turned_on(ann: Login, fresh: Machine) -> None:
    """The service runs, and what is to be done by somebody who may is said. That command does it."""
    fresh.sh("systemctl mask --now polkit")
    try:
        done = ann.run("meshctl service install --linger")
    finally:
        fresh.sh("systemctl unmask polkit")
    assert done.code == 1
    assert "linger was not turned on: " in done.err
    wanted = "sudo loginctl enable-linger ann"
    assert f"\n  next: {wanted}\n" in done.err
    assert "\nends at logout\n" in ann.sh("meshctl service status")
    ann.sh(wanted)
    assert "\ngoes on after logout\n" in ann.sh("meshctl service status")
    assert_well(ann)
    assert json.loads(ann.sh("meshctl status --json"))["managed_by"] == "systemd"
