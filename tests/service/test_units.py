"""The unit files themselves, checked by systemd's own tools; and the mark that tells ours from edited ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshctl.install.files import NotChanged
from meshctl.service import systemd
from meshctl.service.marked import EDITED, FOREIGN, MISSING, OLD, SAME, marked
from meshctl.service.unit import command_line, effective, quoted, unquoted
from tests.helper import Home, Rpc, wait_until

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@pytest.fixture
def units(lone: Home) -> Path:
    """A folder with the units as they are installed here."""
    folder = lone.path / "units"
    folder.mkdir()
    for file in lone.json("service", "install", "--print")["files"]:
        (folder / os.path.basename(file["path"])).write_text(file["text"])
    return folder


@needs_analyze
def test_verify_finds_nothing(units: Path, lone: Home) -> None:
    command = ["systemd-analyze", "--user", "verify", "--man=no", "--recursive-errors=no"]
    paths = [str(units / "meshd.service"), str(units / "meshd.socket")]
    done = subprocess.run([*command, *paths], env=lone.env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_analyze
def test_security_is_below_the_threshold(units: Path, lone: Home) -> None:
    command = ["systemd-analyze", "--user", "security", "--offline=yes", "--threshold=70", str(units / "meshd.service")]
    done = subprocess.run(command, env=lone.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_what_a_users_manager_cannot_do_is_not_asked_of_it(units: Path) -> None:
    """With any of these the unit ends with 218/CAPABILITIES, or puts files where nobody looks for them."""
    text = (units / "meshd.service").read_text()
    for setting in (
        *("CapabilityBoundingSet", "PrivateDevices", "ProtectClock", "ProtectKernelModules", "ProtectKernelLogs"),
        *("StateDirectory", "notify-reload", "User="),
    ):
        assert setting not in text
    sections = text.split("[Service]")
    assert "StartLimitBurst=" in sections[0]
    assert "RestartPreventExitStatus=64 78" in sections[1]


def test_activated_by_systemd_socket_activate(lone: Home) -> None:
    """As it is, without a manager: it waits for a client, and starts the daemon with the socket."""
    if (program := shutil.which("systemd-socket-activate")) is None:
        pytest.skip("systemd is not installed")
    os.makedirs(os.path.dirname(lone.socket), mode=0o700)
    variables = [f"--setenv={name}" for name in ("HOME", "XDG_RUNTIME_DIR")]
    command = [program, f"--listen={lone.socket}", *variables, sys.executable, "-P", "-m", "meshd"]
    with open(lone.path / "meshd.out", "ab") as log:
        lone.daemon = subprocess.Popen(command, env=lone.env, stdout=log, stderr=log)
    client: Rpc = wait_until(lambda: connected(lone.socket), "it listens")
    with client as rpc:
        hello = rpc.call("hello")
    assert (hello["pid"], hello["managed_by"]) == (lone.daemon.pid, "user")
    lone.meshctl("send", "bob", "hello")
    assert lone.meshctl("inbox", "bob") == "[DIRECT from cli] hello\n"
    assert lone.stop() == 0


def connected(path: str) -> Rpc | None:
    try:
        return Rpc(path)
    except OSError:  # not bound yet, or bound and not listening yet
        return None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/bin/python3", "/usr/bin/python3 -P -m meshd"),
        ("/a b/python", '"/a b/python" -P -m meshd'),
        ("/50%/python", '"/50%%/python" -P -m meshd'),
        ('/"\\/python', '"/\\"\\\\/python" -P -m meshd'),
        ("/$x/python", '@"/$x/python" "/$$x/python" -P -m meshd'),
    ],
)
def test_any_path_can_stand_in_a_unit(monkeypatch: pytest.MonkeyPatch, path: str, expected: str) -> None:
    """tests/service/test_install.py runs one of them."""
    monkeypatch.setattr(sys, "executable", path)
    assert command_line() == expected


def test_the_managers_environment_is_read_as_it_is_printed() -> None:
    assert unquoted("/home/a") == "/home/a"
    assert unquoted("$'/home/a b\\'c\\\\'") == "/home/a b'c\\"
    assert unquoted("$'broken\\'") == "$'broken\\'"
    assert quoted("/a") == "/a"


def test_folders_that_are_not_set_are_those_that_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    assert effective("HOME", {}) == "/home/a"
    assert effective("XDG_STATE_HOME", {}) == "/home/a/.local/state"
    assert effective("XDG_STATE_HOME", {"XDG_STATE_HOME": "/x/"}) == "/x"
    assert effective("XDG_CONFIG_HOME", {"HOME": "/home/b"}) == "/home/b/.config"
    assert effective("XDG_RUNTIME_DIR", {}) == f"/run/user/{os.getuid()}"


def test_the_units_of_a_package_are_used_if_they_are_of_this_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is written, because a unit of the user's own would stand before the package's for ever."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(systemd, "_SHARED", (str(tmp_path),))
    program = Path(sys.executable).parent / "meshd"
    (tmp_path / "linked").symlink_to(program)
    unit = tmp_path / "meshd.service"
    found = systemd.Systemd()
    for run in (program, tmp_path / "linked", f"{sys.executable} -P -m meshd"):
        unit.write_text(f"[Service]\nExecStart={run}\n")
        assert (found.files(), found.installed(), found.is_enabled()) == ([], str(unit), False)
    (tmp_path / "sockets.target.wants").mkdir()
    (tmp_path / "sockets.target.wants" / "meshd.socket").symlink_to("/nowhere")
    assert found.is_enabled()
    unit.write_text("[Service]\nExecStart=/somewhere/else/bin/meshd\n")
    assert [file.state() for file in found.files()] == [MISSING, MISSING]


# --- the mark ---


def test_a_file_is_known_by_its_mark(tmp_path: Path) -> None:
    """Ours of today, ours of another version, edited (anywhere, by one character), somebody else's, none."""
    path = tmp_path / "x.service"
    file = marked(str(path), "[Unit]\nDescription=one\n")
    assert (file.state(), file.put(), file.state()) == (MISSING, None, SAME)
    assert marked(str(path), "[Unit]\nDescription=two\n").state() == OLD
    text = path.read_text()
    for edited in (text + "\n", text.replace("one", "One"), text.replace("[Unit]", "[Unit]\n#")):
        path.write_text(edited)
        assert file.state() == EDITED
        with pytest.raises(NotChanged, match="was edited"):
            file.refuse_if_edited("install")
    path.write_text("[Unit]\n")
    assert file.state() == FOREIGN
    backup = file.put()
    assert backup is not None
    assert Path(backup).read_text() == "[Unit]\n"
    assert (file.state(), file.remove(), path.exists()) == (SAME, None, False)


def test_a_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    file = marked(str(tmp_path), "x\n")
    with pytest.raises(NotChanged, match="is not a file"):
        file.state()
