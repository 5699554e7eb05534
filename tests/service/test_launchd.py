"""The agent for launchd: its property list as launchd would read it, and how `launchctl` is asked.

There is no launchd here: a program of that name writes down what it is asked, and runs what the plist names.
"""

from __future__ import annotations

import os
import plistlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshctl.service import here
from meshctl.service.actions import Told, install, restart, stop, uninstall
from meshctl.service.contract import NoManager, ServiceDown
from meshctl.service.launchd import LABEL, Launchd
from meshctl.service.marked import EDITED, SAME
from meshd import paths
from meshd.__main__ import main
from tests.helper import Home, wait_until

# Its state: `loaded` holds the plist's path, `pid` the number of what it has started last. As the real one it does not
# wait until what it starts is ready; a process that is no longer its child is ended when it is a zombie.
FAKE = r"""#!{python}
import os, plistlib, signal, subprocess, sys, time
from pathlib import Path
home = Path(os.environ["HOME"])
loaded, pid, runs = home / "loaded", home / "pid", home / "runs"
def alive():
    try:
        return Path(f"/proc/{{pid.read_text()}}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
def start():
    plist = plistlib.loads(Path(loaded.read_text()).read_bytes())
    bare = {{name: os.environ[name] for name in ("HOME", "XDG_RUNTIME_DIR", "PYTHONPATH") if name in os.environ}}
    child = subprocess.Popen(
        plist["ProgramArguments"], env=bare | plist["EnvironmentVariables"], start_new_session=True, close_fds=True,
        stdin=subprocess.DEVNULL, stdout=open(home / "out", "ab"), stderr=subprocess.STDOUT,
    )
    pid.write_text(str(child.pid))
    with runs.open("a") as file:
        file.write("x")
def end(*signals):
    for number in signals:
        for _ in range(40):
            if not alive():
                return
            os.kill(int(pid.read_text()), number)
            time.sleep(0.05)
verb, *rest = sys.argv[1:]
with open(home / "asked", "a") as file:
    print(verb, *rest, file=file)
if verb == "print" and rest[0].count("/") > 1:
    if not loaded.exists():
        sys.exit(113)
    state = f"state = running\n\tpid = {{pid.read_text()}}" if alive() else "state = not running"
    print(f"x = {{{{\n\t{{state}}\n\truns = {{len(runs.read_text())}}\n\tlast exit code = 0\n}}}}")
elif verb == "bootstrap":
    if loaded.exists():
        sys.exit(5)
    loaded.write_text(rest[1])
    start()
elif verb == "bootout":
    loaded.unlink()
    end(signal.SIGTERM, signal.SIGKILL)
elif verb == "kickstart":
    if "-k" in rest:
        end(signal.SIGKILL)
    if not alive():
        start()
"""


@pytest.fixture
def mac(served: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home with that `launchctl`, and this process in it."""
    folder = served.path / "bin"
    folder.mkdir()
    (folder / "launchctl").write_text(FAKE.format(python=sys.executable))
    (folder / "launchctl").chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("XDG_", "AGENT_MESH_"))]:
        monkeypatch.delenv(name)
    for name, value in served.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield served
    Launchd().stop()


def told() -> Told:
    return Told("launchd", "install", silent=True)


def asked(home: Home) -> list[str]:
    """What was asked beside looking, with this user's number left out."""
    lines = (home.path / "asked").read_text().replace(f"gui/{os.getuid()}", "gui/U").splitlines()
    (home.path / "asked").unlink()
    return [line for line in lines if not line.startswith("print ")]


def hello(home: Home) -> tuple[int, str]:
    with home.rpc() as rpc:
        said = rpc.call("hello")
    return said["pid"], said["managed_by"]


def test_the_plist(mac: Home) -> None:
    """Absolute paths, never detached, started again only after a failure, a log of its own."""
    (file,) = Launchd().files()
    assert file.path == f"{mac.path}/Library/LaunchAgents/{LABEL}.plist"
    found = plistlib.loads(file.text.encode())
    assert found["ProgramArguments"] == [sys.executable, "-P", "-m", "meshd"]
    assert found["KeepAlive"] == {"SuccessfulExit": False}
    assert (found["RunAtLoad"], found["Label"], found["ProcessType"]) == (True, LABEL, "Interactive")
    assert found["EnvironmentVariables"] == {"AGENT_MESH_MANAGED_BY": "launchd"}
    assert found["StandardErrorPath"] != paths.daemon_log()
    assert found["Umask"] == 0o077
    assert "@" not in file.text
    assert os.path.isabs(found["StandardErrorPath"])


def test_a_plist_that_was_edited_is_known(mac: Home) -> None:
    (file,) = Launchd().files()
    file.put()
    assert file.state() == SAME
    path = Path(file.path)
    path.write_text(path.read_text().replace("Interactive", "Background"))
    assert file.state() == EDITED
    assert plistlib.loads(path.read_bytes())["ProcessType"] == "Background"


@pytest.mark.parametrize("name", ["a b", "<&\"'%h$x;", "é"])
def test_any_home_can_stand_in_the_plist(mac: Home, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with monkeypatch.context() as other:
        other.setenv("HOME", str(mac.path / name))
        found = plistlib.loads(Launchd().files()[0].text.encode())
        assert found["StandardErrorPath"] == paths.daemon_log().replace(".log", ".out")
    assert name in found["StandardErrorPath"]


@pytest.mark.parametrize("name", ["\x1b", "\udcff"])
def test_a_home_that_cannot_is_named(mac: Home, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with monkeypatch.context() as other:
        other.setenv("HOME", str(mac.path / name))
        with pytest.raises(NoManager, match="a path does not fit into a property list: "):
            Launchd().files()


def test_launchctl_is_asked_for_what_it_still_knows(mac: Home) -> None:
    """`bootstrap`, `bootout`, `kickstart`; `load` and `unload` are of another time. Each returns when all is done."""
    path, service = Launchd().files()[0].path, told()
    install(Launchd(), service, print_only=False, force=False, linger=False)
    first, by = hello(mac)
    assert by == "launchd"
    # RunAtLoad has started it, so there is no kick.
    assert asked(mac) == [f"enable gui/U/{LABEL}", f"bootstrap gui/U {path}"]
    assert service.facts["notes"] == ["an agent of launchd ends with the login"]
    install(Launchd(), told(), print_only=False, force=False, linger=False)
    assert asked(mac) == []
    restart(Launchd(), told())
    second, _ = hello(mac)
    assert second != first
    assert asked(mac) == [f"kickstart -k gui/U/{LABEL}"]
    state = Launchd().state()
    assert (state.active, state.pid, state.restarts, state.result) == ("active", second, 1, "")
    stop(Launchd(), told())
    assert asked(mac) == [f"bootout gui/U/{LABEL}"]
    assert (Launchd().state().pid, os.path.exists(mac.socket)) == (None, False)
    Launchd().start()
    assert hello(mac)[1] == "launchd"
    assert asked(mac) == [f"bootstrap gui/U {path}"]
    uninstall(Launchd(), told(), print_only=False, force=False)
    assert not os.path.exists(path)
    assert not os.path.exists(mac.socket)


def test_a_command_that_needs_the_daemon_waits_for_the_one_that_launchd_starts(mac: Home) -> None:
    """And starts none beside it, which the other would have to take over."""
    install(Launchd(), told(), print_only=False, force=False, linger=False)
    with mac.rpc() as rpc:
        rpc.call("shutdown")
    Launchd().start()
    assert hello(mac) == (Launchd().state().pid, "launchd")


def test_one_that_is_still_ending_is_started_when_it_has_ended(mac: Home) -> None:
    """It listens no more, and launchd shows it for as long as it is there; what has ended with 0 it leaves alone."""
    install(Launchd(), told(), print_only=False, force=False, linger=False)
    with mac.rpc() as rpc:
        rpc.call("shutdown")
    wait_until(lambda: Launchd().state().pid is None, "it has ended")
    ending = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    (mac.path / "pid").write_text(str(ending.pid))
    asked(mac)
    starting = threading.Thread(target=Launchd().start)
    starting.start()
    wait_until(lambda: (mac.path / "asked").exists() and looks(mac) > 2, "it waits for its end")
    ending.communicate()
    starting.join()
    assert asked(mac) == [f"kickstart gui/U/{LABEL}"]
    assert hello(mac) == (Launchd().state().pid, "launchd")


def looks(home: Home) -> int:
    """How often launchd was asked how the daemon is."""
    return (home.path / "asked").read_text().count(f"{LABEL}\n")


def test_a_daemon_that_does_not_start_is_an_error_that_leads_to_the_log(mac: Home) -> None:
    mac.config.write_text("nonsense = 1\n")
    with pytest.raises(ServiceDown, match=r"launchd has started .*, and it has ended") as refused:
        install(Launchd(), told(), print_only=False, force=False, linger=False)
    assert refused.value.hint == "meshctl logs -n 20; then: meshctl service start"
    assert "unknown key 'nonsense'" in Path(paths.daemon_log()).read_text()


def test_one_that_hangs_is_ended_by_force(mac: Home) -> None:
    install(Launchd(), told(), print_only=False, force=False, linger=False)
    pid, _ = hello(mac)
    os.kill(pid, signal.SIGSTOP)
    stop(Launchd(), told())
    assert Launchd().state().pid is None


def test_what_homebrew_has_installed_is_used_and_left_to_it(mac: Home) -> None:
    Launchd().files()[0].put()
    ours = Path(Launchd().files()[0].path)
    theirs = ours.rename(ours.with_name("homebrew.mxcl.agent-mesh.plist"))
    with pytest.raises(NoManager, match="Homebrew has installed it"):
        Launchd().check()
    Launchd().restart()
    assert asked(mac) == [f"bootstrap gui/U {theirs}"]
    assert hello(mac)[1] == "launchd"
    Launchd().restart()
    assert asked(mac) == ["kickstart -k gui/U/homebrew.mxcl.agent-mesh"]


def test_the_manager_of_each_platform() -> None:
    assert (here.find("darwin").name, here.find("linux").name) == ("launchd", "systemd")
    with pytest.raises(NoManager, match="no service manager that agent-mesh knows on freebsd14"):
        here.find("freebsd14")


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
    before = os.umask(0o022)
    try:
        assert main() == code
    finally:
        os.umask(before)  # which it has set for a process of its own
