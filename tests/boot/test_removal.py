"""How it goes away again, and what stays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.boot.diagnosis import assert_well, checkup, paste
from tests.boot.machine import Login, Machine
from tests.boot.mail import TEXTS, inbox, send
from tests.boot.readme import command
from tests.helper import wait_until

# "messages and settings stay", the notify log beside them; pipx keeps its own log.
STAYS = (".local/state/agent-mesh/", ".cache/agent-mesh/", ".config/agent-mesh/", ".local/pipx/logs/")


def files(machine: Machine) -> set[str]:
    """Of ann's, but for the source."""
    found = machine.sh("cd /home/ann && find . ! -type d ! -path './agent-mesh/*' -printf '%P\\n'")
    return set(found.splitlines())


@contextlib.contextmanager
def next_session(machine: Machine, session: Login) -> Iterator[Login]:
    """After a logout from the only one."""
    session.logout()
    wait_until(lambda: not machine.is_served("ann"), "ann's manager ends")
    with machine.login("ann") as again:
        yield again


def test_it_goes_as_it_came(served: Login, fresh: Machine) -> None:
    """Messages and settings stay, and nothing that runs or is started."""
    send(served)
    served.sh(command("meshctl service uninstall"))
    served.sh("pipx uninstall agent-mesh")
    assert served.run("pgrep -u ann -f meshd").code == 1
    assert [name for name in files(fresh) if "mesh" in name and not name.startswith(STAYS)] == []
    assert (fresh.home("ann") / ".local/state/agent-mesh/agents/bob.journal").read_bytes().count(b"three") == 1
    with next_session(fresh, served) as again:
        assert again.sh("systemctl --user list-units --all --no-legend 'meshd*'") == ""
        assert again.sh("systemctl --user list-units --failed --no-legend") == ""


def test_a_program_that_goes_before_its_service(served: Login, fresh: Machine) -> None:
    """No login after that finds anything failed. When the program is back, doctor's commands bring the service back."""
    send(served)
    served.sh("pipx uninstall agent-mesh")
    with next_session(fresh, served) as again:
        wait_until(lambda: "activating" not in again.run("systemctl --user is-active meshd").out, "systemd gives up")
        failed = again.sh("systemctl --user list-units --failed --no-legend --plain")
        again.sh(f"cd agent-mesh && {command('pipx install .')}", 300)
        for found in checkup(again):
            if found["level"] == "error":
                paste(again, found)
        assert inbox(again) == TEXTS
        assert_well(again)
    assert failed == ""
