"""The agent for launchd: its property list as launchd would read it, and which commands `launchctl` is given.

There is no launchd here: a program of that name writes down what it is asked, and answers as the real one does.
"""

from __future__ import annotations

import os
import plistlib
import sys
from pathlib import Path

import pytest

from meshctl.service import manager as managers
from meshctl.service.actions import Told, install, uninstall
from meshctl.service.launchd import LABEL, Launchd
from meshctl.service.manager import NoManager
from meshctl.service.marked import EDITED, SAME
from meshd import paths
from meshd.__main__ import main
from tests.helper import Home

FAKE = """#!/bin/sh
echo "$@" >> "$HOME/asked"
case "$1 $2" in
"print gui/"*/*)
    [ -e "$HOME/loaded" ] || exit 113
    printf 'x = {\\n\\tstate = running\\n\\tpid = 42\\n\\truns = 3\\n}\\n' ;;
"print gui/"*) ;;
"bootstrap "*) [ -e "$3" ] || exit 5; touch "$HOME/loaded" ;;
"bootout "*) rm "$HOME/loaded" ;;
esac
"""


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with that `launchctl`; it does not listen to a daemon, so nothing is handed over."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "launchctl").write_text(FAKE)
    (folder / "launchctl").chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return tmp_path


def asked(home: Path) -> list[str]:
    """What was asked beside looking, with this user's number left out."""
    lines = (home / "asked").read_text().replace(f"gui/{os.getuid()}", "gui/U").splitlines()
    (home / "asked").unlink()
    return [line for line in lines if not line.startswith("print ")]


def test_the_plist(mac: Path) -> None:
    """Absolute paths, never detached, started again only after a failure, a log of its own."""
    (file,) = Launchd().files()
    assert file.path == f"{mac}/Library/LaunchAgents/{LABEL}.plist"
    found = plistlib.loads(file.text.encode())
    assert found["ProgramArguments"] == [sys.executable, "-P", "-m", "meshd", "--log-file", paths.daemon_log()]
    assert found["KeepAlive"] == {"SuccessfulExit": False}
    assert (found["RunAtLoad"], found["Label"], found["ProcessType"]) == (True, LABEL, "Interactive")
    assert found["EnvironmentVariables"] == {"AGENT_MESH_MANAGED_BY": "launchd"}
    assert found["StandardErrorPath"] != paths.daemon_log()
    assert found["Umask"] == 0o077
    assert "@" not in file.text
    assert os.path.isabs(found["StandardErrorPath"])


def test_a_plist_that_was_edited_is_known(mac: Path) -> None:
    (file,) = Launchd().files()
    file.put()
    assert file.state() == SAME
    path = Path(file.path)
    path.write_text(path.read_text().replace("Interactive", "Background"))
    assert file.state() == EDITED
    assert plistlib.loads(path.read_bytes())["ProcessType"] == "Background"


def test_launchctl_is_asked_for_what_it_still_knows(mac: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bootstrap`, `bootout`, `kickstart`; `load` and `unload` are of another time."""
    monkeypatch.setattr("meshctl.service.actions._running", lambda manager: "meshd")
    path = Launchd().files()[0].path
    told = Told("launchd", "install", silent=True)
    install(Launchd(), told, print_only=False, force=False, linger=False)
    # RunAtLoad has started it, so there is no kick.
    assert asked(mac) == [f"enable gui/U/{LABEL}", f"bootstrap gui/U {path}"]
    assert told.facts["notes"] == ["an agent of launchd ends with the login"]
    install(Launchd(), told, print_only=False, force=False, linger=False)
    assert asked(mac) == []
    Launchd().restart()
    assert asked(mac) == [f"kickstart -k gui/U/{LABEL}"]
    state = Launchd().state()
    assert (state.active, state.pid, state.restarts) == ("active", 42, 2)
    Launchd().stop()
    assert asked(mac) == [f"kill SIGTERM gui/U/{LABEL}"]
    assert Launchd().disable() == [f"launchctl bootout gui/{os.getuid()}/{LABEL}"]
    asked(mac)
    Launchd().start()
    assert asked(mac) == [f"bootstrap gui/U {path}", f"kickstart gui/U/{LABEL}"]
    Launchd().disable()
    uninstall(Launchd(), told, print_only=False, force=False)
    assert not os.path.exists(path)


def test_what_homebrew_has_installed_is_used_and_left_to_it(mac: Path) -> None:
    folder = mac / "Library" / "LaunchAgents"
    folder.mkdir(parents=True)
    theirs = folder / "homebrew.mxcl.agent-mesh.plist"
    theirs.write_bytes(plistlib.dumps({"Label": "homebrew.mxcl.agent-mesh"}))
    (mac / "loaded").touch()
    with pytest.raises(NoManager, match="Homebrew has installed it"):
        Launchd().check()
    Launchd().restart()
    assert asked(mac) == ["kickstart -k gui/U/homebrew.mxcl.agent-mesh"]


def test_the_manager_of_each_platform() -> None:
    assert (managers.find("darwin").name, managers.find("linux").name) == ("launchd", "systemd")
    with pytest.raises(NoManager, match="no service manager that agent-mesh knows on freebsd14"):
        managers.find("freebsd14")


@pytest.mark.parametrize(("managed_by", "code"), [("launchd", 0), ("systemd", 78), ("user", 78)])
def test_what_stays_wrong_is_no_failure_to_launchd(
    lone: Home, monkeypatch: pytest.MonkeyPatch, managed_by: str, code: int
) -> None:
    """It would start the daemon again and again: it has no RestartPreventExitStatus."""
    lone.config.parent.mkdir(parents=True)
    lone.config.write_text("nonsense = 1\n")
    for name, value in (lone.env | {"AGENT_MESH_MANAGED_BY": managed_by}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["meshd", "--log-file", str(lone.path / "log")])
    assert main() == code
