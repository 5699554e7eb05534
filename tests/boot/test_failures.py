"""What goes wrong with a new user, caused on purpose: doctor names it, and its own command, pasted, mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.boot.conftest import STORED, end
from tests.boot.diagnosis import assert_well, checkup, paste
from tests.boot.machine import Cron, Login, Machine, Shell
from tests.boot.mail import TEXTS, inbox, send
from tests.doctor.checkup import bad, named
from tests.helper import wait_until

SOCKET = "$XDG_RUNTIME_DIR/agent-mesh/meshd.sock"


def status(session: Shell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(session.sh("meshctl status --json"))
    return found


# --- the service and its socket ---


def test_a_unit_that_was_edited(served: Login) -> None:
    send(served)
    served.sh("sed -i s/RestartSec=1/RestartSec=7/ ~/.config/systemd/user/meshd.service")
    findings = checkup(served)
    named(findings, "systemd has not read its files since they changed", "warning")
    paste(served, named(findings, "meshd.service is edited", "warning"))
    assert_well(served)
    assert inbox(served) == TEXTS


def by_hand(session: Login) -> int:
    """Stop the service, and start a daemon in its place. Its pid."""
    session.sh("meshctl service stop && setsid -f meshd </dev/null >~/meshd.out 2>&1")
    wait_until(lambda: "by hand" in session.run("meshctl service status").out, "it runs")
    found = status(session)
    assert found["managed_by"] == "user"
    return int(found["pid"])


def listening(session: Login) -> Callable[[], str]:
    """Somebody waits for carol's mail in the background; what was said to it."""
    session.sh("setsid -f meshctl listen carol --timeout 60 >~/heard 2>&1 </dev/null")
    wait_until(lambda: "carol" in session.sh("meshctl who"), "carol listens")
    return lambda: session.sh("cat ~/heard")


def test_a_daemon_that_was_started_by_hand(served: Login) -> None:
    """Beside the service, which takes over by doctor's command: who waits for mail gets it."""
    send(served)
    pid = by_hand(served)
    heard = listening(served)
    paste(served, named(checkup(served), f"was started by hand (pid {pid}) runs beside the service", "warning"))
    served.sh("meshctl send carol hello --from alice")
    wait_until(lambda: heard() == "[DIRECT from alice] hello\n", "who waited was reached")
    assert_only_the_service(served, pid)


@pytest.mark.parametrize("unit", ["meshd", "meshd.socket"])
def test_systemd_starts_it_beside_one_that_was_started_by_hand(served: Login, unit: str) -> None:
    """Typed by somebody who does not know of that one. Who waits gets the mail, or hears that it must ask again."""
    send(served)
    pid = by_hand(served)
    heard = listening(served)
    served.sh(f"systemctl --user start {unit}")
    served.sh("meshctl send carol hello --from alice")
    wait_until(heard, "who waited has an answer")
    if heard() != "[DIRECT from alice] hello\n":
        assert heard().startswith("the daemon was stopped before this was answered\n")
        assert "hello" in served.sh("meshctl listen carol")
    assert_only_the_service(served, pid)


def assert_only_the_service(session: Login, by_hand: int) -> None:
    assert inbox(session) == TEXTS
    assert status(session)["managed_by"] == "systemd"
    assert session.run(f"kill -0 {by_hand}").code == 1
    assert_well(session)


@pytest.mark.parametrize("first", [None, "systemctl --user start meshd"])
def test_a_dead_socket_is_in_nobody_s_way(served: Login, first: str | None) -> None:
    """The service is stopped, and a killed daemon has left its socket: the first command starts the service."""
    send(served)
    served.sh(f"kill -KILL {by_hand(served)}; test -S {SOCKET}")
    findings = checkup(served)
    assert bad(findings) == []
    named(findings, "meshd is not running; systemd starts it with the first command", "ok")
    if first:
        served.sh(first)
    assert inbox(served) == TEXTS
    assert status(served)["managed_by"] == "systemd"
    assert_well(served)


def test_a_plain_file_at_the_socket_s_path(served: Login) -> None:
    send(served)
    served.sh(f"meshctl service stop && touch {SOCKET}")
    paste(served, named(checkup(served), "meshd.sock is not a socket"))
    assert inbox(served) == TEXTS
    assert status(served)["managed_by"] == "systemd"
    assert_well(served)


def test_a_configuration_that_cannot_be_read(served: Login) -> None:
    """The service fails with it. The file is named, and so is the service, which is started again by its command."""
    send(served)
    served.sh("mkdir -p ~/.config/agent-mesh && echo 'prefix =' > ~/.config/agent-mesh/config.toml")
    assert "config.toml: Invalid value" in served.sh("meshctl service restart", code=3)
    findings = checkup(served)
    failed = named(findings, "the service has failed: ")
    assert "config.toml: Invalid value" in failed["what"]
    (configuration,) = [found for found in findings if found["area"] == "configuration"]
    assert "config.toml: Invalid value" in configuration["what"]
    served.sh("printf '#!/bin/sh\\nrm \"$1\"' > ~/editor && chmod +x ~/editor")
    paste(served, configuration, {"EDITOR": "/home/ann/editor"})
    paste(served, failed)
    assert inbox(served) == TEXTS
    assert_well(served)


# --- the disk ---


@pytest.fixture
def disk(fresh: Machine) -> Iterator[Machine]:
    """Ann's home is a disk of its own, with room for 500 MB."""
    fresh.sh(f"mount -t tmpfs -o size=500m tmpfs /home/ann && cp -a {STORED}/. /home/ann")
    yield fresh
    end(fresh)
    fresh.sh("umount /home/ann")


def test_a_home_that_is_mounted_read_only(disk: Machine) -> None:
    with disk.login("ann") as ann:
        ann.sh("meshctl service install")
        send(ann)
        ann.sh("meshctl service stop")
        disk.sh("mount -o remount,ro /home/ann")
        assert "mounted read-only" in ann.sh("meshctl inbox bob", code=3)
        found = named(checkup(ann), "the state folder /home/ann/.local/state/agent-mesh is not writable")
        assert found["next"] == "sudo mount -o remount,rw /home/ann"
        paste(ann, found)
        ann.sh("meshctl service start")
        assert_well(ann)
        assert inbox(ann) == TEXTS


def test_a_full_disk(disk: Machine) -> None:
    """What is refused is said; what was sent is there when there is room again."""
    with disk.login("ann") as ann:
        ann.sh("meshctl service install")
        send(ann)
        ann.run("head -c 500M /dev/zero > ~/large")
        wait_until(lambda: ann.run("meshctl send bob $(printf %05000d 0) --from alice").code == 4, "it is refused")
        found = named(checkup(ann), "the disk of the state folder /home/ann/.local/state/agent-mesh is full")
        assert " 100% /home/ann\n" in paste(ann, found)
        ann.sh("rm ~/large")
        wait_until(lambda: ann.run("meshctl send bob again --from alice").code == 0, "there is room")
        wait_until(lambda: not bad(checkup(ann)), "it goes on by itself")
        assert [text for text in inbox(ann) if set(text) != {"0"}] == [*TEXTS, "again"]


# --- the environment ---


def test_a_shell_with_another_home(served: Login) -> None:
    """Its command has that shell use the same files, and disturbs nobody."""
    send(served)
    served.sh("mkdir ~/elsewhere")
    there = {"HOME": "/home/ann/elsewhere"}
    pid = status(served)["pid"]
    found = named(checkup(served, there), "is of another home: its files are in")
    assert bad(checkup(served, there, before=found["next"])) == []
    assert status(served)["pid"] == pid
    assert inbox(served) == TEXTS
    assert_well(served)


def test_a_job_of_cron_while_its_user_is_logged_in(served: Login, fresh: Machine) -> None:
    """It has no runtime folder in its environment, and uses the service nevertheless."""
    cron = Cron(fresh, "ann")
    assert "XDG" not in cron.sh("env")
    send(cron)
    assert_well(cron)
    assert status(cron)["managed_by"] == "systemd"
    assert inbox(served) == TEXTS


def test_a_job_of_cron_while_nobody_is_logged_in(served: Login, fresh: Machine) -> None:
    """It starts a daemon; that there is no systemd for the user is said. The next login's service takes over."""
    served.logout()
    wait_until(lambda: not fresh.is_served("ann"), "ann's manager ends")
    cron = Cron(fresh, "ann")
    send(cron)
    assert status(cron)["managed_by"] == "user"
    with fresh.login("ann") as ann:
        wait_until(lambda: status(ann)["managed_by"] == "systemd", "the service has taken over")
        assert inbox(ann) == TEXTS
        assert_well(ann)
        send(cron, "four")
        assert_well(cron)
        assert inbox(ann) == ["four"]


def test_what_doctor_advises_a_job_of_cron(served: Login, fresh: Machine) -> None:
    """That there is no systemd for its user, and how there is one without a login."""
    served.logout()
    wait_until(lambda: not fresh.is_served("ann"), "ann's manager ends")
    cron = Cron(fresh, "ann")
    send(cron)
    paste(cron, named(checkup(cron), "systemd does not run for this user", "warning"))
    wait_until(lambda: status(cron)["managed_by"] == "systemd", "the service has taken over")
    assert inbox(cron) == TEXTS
    assert_well(cron)


# --- the store ---


def test_a_store_that_refuses_writes(ann: Login) -> None:
    """A Redis of ann's own, which is up."""
    ann.sh("mkdir -p ~/.config/agent-mesh ~/redis")
    ann.sh("echo 'redis_url = \"unix:///home/ann/redis/s\"' > ~/.config/agent-mesh/config.toml")
    ann.sh("cd ~/redis && setsid -f redis-server --port 0 --unixsocket s --appendonly yes >log 2>&1 </dev/null")
    wait_until(lambda: ann.run("redis-cli -s ~/redis/s ping").out == "PONG\n", "Redis runs")
    ann.sh("meshctl service install")
    send(ann)
    assert_well(ann)
    ann.sh("redis-cli -s ~/redis/s config set min-replicas-to-write 1")
    assert "NOREPLICAS" in ann.sh("meshctl send bob lost --from alice", code=4)
    paste(ann, named(checkup(ann), "the store refuses writes: it wants more replicas than the 0 that it has"))
    assert_well(ann)
    send(ann, "four")
    assert inbox(ann) == [*TEXTS, "four"]
