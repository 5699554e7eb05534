"""Installing where something is in the way: edited files, another home, a read-only one, no manager, linger."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helper import Home, Store, a_home
from tests.service.user_manager import UserManager, why_not

PROGRAM = [sys.executable, "-m", "meshctl", "service"]


def test_print_shows_the_files_and_changes_nothing(lone: Home) -> None:
    """Without a manager, too: for whoever packages or looks first."""
    shown = lone.meshctl("service", "install", "--print")
    assert f"\nExecStart={sys.executable} -P -m meshd\n" in shown
    assert "\nListenStream=%t/agent-mesh/meshd.sock\n" in shown
    assert [path.name for path in lone.path.iterdir() if path.name != "meshd.out"] == []
    files = lone.json("service", "install", "--print")["files"]
    assert [(os.path.basename(file["path"]), file["state"]) for file in files] == [
        ("meshd.socket", "missing"),
        ("meshd.service", "missing"),
    ]


def test_a_file_that_was_edited_is_not_overwritten(served: Home, manager: UserManager) -> None:
    """Not even the other one is written then. With --force it is, and the user's text is kept beside it."""
    manager.meshctl("service", "install")
    unit, text = manager.unit(), manager.unit().read_text()
    edited = text.replace("WatchdogSec=60", "WatchdogSec=90")
    unit.write_text(edited)
    manager.unit("meshd.socket").unlink()
    for action in ("install", "uninstall"):
        done = manager.run("service", action)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{unit} was edited since it was written; it was left as it is\n  next: meshctl ")
    assert unit.read_text() == edited
    assert not manager.unit("meshd.socket").exists()
    assert f"{unit}: edited\n  next: meshctl service install --force\n" in manager.meshctl("service", "status")
    said = manager.meshctl("service", "install", "--force")
    (backup,) = unit.parent.glob("meshd.service.*.bak")
    assert f"wrote {unit} (what was there is now {backup})" in said
    assert (unit.read_text(), backup.read_text()) == (text, edited)
    assert f"restarted meshd (pid {manager.pid}), as the new files say" in said


def test_a_unit_that_is_not_ours_is_neither_overwritten_nor_removed(served: Home, manager: UserManager) -> None:
    manager.unit().write_text("[Service]\nExecStart=/bin/sleep 1000\n")
    for action in ("install", "uninstall"):
        done = manager.run("service", action)
        assert done.returncode == 1
        assert "was not written by agent-mesh; it was left as it is" in done.stderr
    assert manager.unit().read_text() == "[Service]\nExecStart=/bin/sleep 1000\n"


def test_files_of_an_older_installation_are_replaced(served: Home, manager: UserManager) -> None:
    """What we wrote and nobody touched is ours to bring up to date, and the daemon is started anew with it."""
    manager.meshctl("service", "install")
    pid = manager.pid
    moved = Path(served.path / "bin" / "we ird $h%h")
    moved.parent.mkdir()
    moved.symlink_to(Path(sys.prefix), target_is_directory=True)
    python = str(moved / "bin" / os.path.basename(sys.executable))
    done = manager.inside(python, "-m", "meshctl", "service", "status")
    assert f"{manager.unit()}: outdated\n  next: meshctl service install\n" in done.stdout
    done = manager.inside(python, "-m", "meshctl", "service", "install")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"restarted meshd (pid {manager.pid}), as the new files say" in done.stdout
    assert manager.pid not in (0, pid)
    command = Path(f"/proc/{manager.pid}/cmdline").read_bytes().split(b"\0")
    assert command[0] == python.encode()
    assert not list(manager.unit().parent.glob("*.bak"))


def test_a_service_for_another_home_is_refused(served: Home, manager: UserManager, tmp_path: Path) -> None:
    done = manager.run("service", "install", HOME=str(tmp_path / "other"))
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"the systemd of this user runs with HOME={served.path}, this shell with {tmp_path / 'other'}: "
    )
    done = manager.run("service", "install", XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "runs with XDG_STATE_HOME=" in done.stderr
    assert not (tmp_path / "other").exists()


def test_any_home_has_a_service(tmp_path: Path, mesh_store: Store, prefix: str) -> None:
    if reason := why_not():
        pytest.skip(reason)
    with a_home(tmp_path / "a b%h'\"$x;é\\") as home:
        home.config.parent.mkdir(parents=True)
        home.config.write_text(f'redis_url = "{mesh_store.url}"\nprefix = "{prefix}"\n')
        with UserManager(home) as manager:
            if path := os.environ.get("PYTHONPATH"):
                manager.drop_in(f"Environment=PYTHONPATH={path}")
            manager.meshctl("service", "install")
            assert manager.meshctl("service", "install").startswith("installed already, and running\n")
            assert manager.meshctl("send", "bob", "hello", "--from", "alice", AGENT_MESH_NO_AUTOSTART="1")
            assert manager.meshctl("service", "uninstall").startswith("stopped meshd\n")
            assert not manager.unit().exists()


def test_a_read_only_home_is_named(served: Home, manager: UserManager) -> None:
    folder = manager.unit().parent
    script = 'mount -t tmpfs -o ro tmpfs "$1"; shift; exec "$@" install'
    done = manager.inside("unshare", "-m", "sh", "-c", script, "sh", str(folder), *PROGRAM)
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot write {folder}/meshd.socket: Read-only file system; it was left as it is\n")
    assert manager.pid == 0


def test_what_cannot_be_removed_goes_on_running(served: Home, manager: UserManager) -> None:
    """A home that became read-only: half an uninstallation would start again at the next login."""
    manager.meshctl("service", "install")
    folder, pid = manager.unit().parent, manager.pid
    script = 'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; shift; exec "$@" uninstall'
    done = manager.inside("unshare", "-m", "sh", "-c", script, "sh", str(folder), *PROGRAM)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"cannot remove {folder}/meshd.socket: its folder is not writable; it was left as it is\n"
        f"  next: make its folder writable: {folder}\n"
    )
    assert manager.pid == pid


def test_variables_of_the_shell_are_named_and_not_copied(served: Home, manager: UserManager) -> None:
    """Their values stay where they are: one of them may hold a password."""
    said = manager.meshctl(
        "service", "install", AGENT_MESH_REDIS_URL="redis://:hunter2@nowhere", AGENT_MESH_GATE_LIMIT="3"
    )
    assert "AGENT_MESH_REDIS_URL, AGENT_MESH_GATE_LIMIT of this shell are not the service's: " in said
    assert str(served.config) in said
    assert "hunter2" not in said + manager.unit().read_text()
    done = manager.run("who", AGENT_MESH_PREFIX="other")
    assert done.stderr.endswith(f"to change it: write {served.config}, then: meshctl service restart\n")


@pytest.mark.parametrize("unit", ["meshd.service", "meshd.socket"])
def test_a_masked_unit_stays_masked_and_the_command_that_undoes_it_is_named(
    served: Home, manager: UserManager, unit: str
) -> None:
    """Its owner has forbidden it: not even --force goes over that."""
    assert manager.ctl("mask", unit).returncode == 0
    unmask = f"systemctl --user unmask {unit}"
    for options in ((), ("--force",)):
        done = manager.run("service", "install", *options)
        assert done.returncode == 1
        assert done.stderr == f"{manager.unit(unit)} is masked; it was left as it is\n  next: {unmask}, then repeat\n"
    assert f"{manager.unit(unit)}: masked\n  next: {unmask}\nnot installed\n" in manager.meshctl(
        "service", "status", code=1
    )
    assert manager.meshctl("service", "uninstall") == "not installed\n"
    assert os.path.islink(manager.unit(unit))
    assert manager.inside(*unmask.split()).returncode == 0
    assert "started meshd" in manager.meshctl("service", "install")


def test_a_unit_that_was_masked_later_does_not_start(served: Home, manager: UserManager) -> None:
    manager.meshctl("service", "install")
    manager.meshctl("service", "stop")
    manager.unit().unlink()
    manager.unit().symlink_to(os.devnull)
    done = manager.run("service", "start")
    assert done.returncode == 3
    assert done.stderr == "the service is not installed\n  next: meshctl service install\n"
    assert manager.run("send", "bob", "hello").returncode == 0
    with served.rpc() as rpc:
        assert rpc.call("hello")["managed_by"] == "user"
    manager.meshctl("service", "uninstall")
    assert os.path.islink(manager.unit())
    assert not manager.unit("meshd.socket").exists()


def test_what_somebody_has_removed_is_uninstalled_to_the_end(served: Home, manager: UserManager) -> None:
    """Links to units that are no more, in which every command would run, go with it."""
    manager.meshctl("service", "install")
    manager.meshctl("service", "stop")
    for unit in ("meshd.service", "meshd.socket"):
        manager.unit(unit).unlink()
    manager.ctl("daemon-reload")
    done = manager.run("send", "bob", "hello", "--from", "bob")
    assert (done.returncode, "the service did not start" in done.stderr) == (0, False)
    assert manager.run("service", "uninstall").returncode == 0
    assert not [path for path in manager.unit().parent.rglob("*.wants/*") if path.is_symlink()]


def test_a_program_in_a_cache_is_named(served: Home, manager: UserManager, tmp_path: Path) -> None:
    """As uvx has it: the cache is cleaned some day."""
    cached = tmp_path / ".cache" / "uv" / "archive"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", cached], check=True)
    (site,) = (cached / "lib").glob("python3*/site-packages")
    (site / "ours.pth").write_text("\n".join(path for path in sys.path if os.path.isdir(path)))
    words = f"{cached} is a cache"
    done = manager.inside(str(cached / "bin" / "python"), *PROGRAM[1:], "install")
    assert (done.returncode, done.stderr) == (0, "")
    assert words in done.stdout
    assert words not in manager.meshctl("service", "install")


def test_nothing_is_there_to_be_stopped(served: Home, manager: UserManager) -> None:
    """And what was started by hand is not the service's."""
    served.start()
    assert manager.meshctl("service", "stop") == "not installed\n"
    assert served.json("status")["pid"]


def test_a_user_without_a_name_has_a_service_too(served: Home, manager: UserManager) -> None:
    """As in a container that was started with a number: loginctl takes it."""
    nobody = ("unshare", "--user", "--map-user=54321", "--map-group=54321")
    done = manager.inside(*nobody, *PROGRAM, "install")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("loginctl enable-linger 54321\n")


def test_a_shell_with_another_socket_is_told_so(served: Home, manager: UserManager) -> None:
    elsewhere = os.path.join(os.path.dirname(served.socket), "elsewhere.sock")
    said = "unset AGENT_MESH_SOCKET: the service has a socket of its own\n"
    done = manager.run("service", "install", AGENT_MESH_SOCKET=elsewhere)
    assert done.returncode == 3
    assert done.stderr == f"systemd has started it, and nothing listens on {elsewhere}\n  next: {said}"
    assert said in manager.meshctl("service", "status", code=3, AGENT_MESH_SOCKET=elsewhere)
    assert manager.meshctl("service", "status")


def test_linger_is_told_and_turned_on_when_asked(served: Home, manager: UserManager) -> None:
    """With a loginctl of ours: there is no logind here."""
    folder = served.path / "bin"
    folder.mkdir()
    fake = folder / "loginctl"
    fake.write_text('#!/bin/sh\nmkdir -p /var/lib/systemd/linger && touch "/var/lib/systemd/linger/$2"\n')
    fake.chmod(0o755)
    # The machine's own folder is hidden: nothing may be turned on there.
    script = (
        'mount -t tmpfs tmpfs /var/lib/systemd; "$@" install; "$@" install --linger; "$@" install --linger; "$@" status'
    )
    path = f"PATH={folder}:{served.env['PATH']}"
    done = manager.inside("unshare", "-m", "env", path, "sh", "-c", script, "sh", *PROGRAM)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[5] == "linger is off: it ends at your last logout; to have it go on: loginctl enable-linger root"
    assert lines.count("ran loginctl enable-linger root") == 1
    assert lines.count("linger is on: it starts with the machine and goes on after logout") == 2
    assert lines[-1] == "goes on after logout"


@pytest.mark.parametrize("loginctl", ["as it is", "fails in silence", "missing"])
def test_linger_that_cannot_be_turned_on_is_an_error_and_the_service_runs(
    served: Home, manager: UserManager, loginctl: str
) -> None:
    folder = served.path / "bin"
    folder.mkdir()
    (folder / "systemctl").symlink_to(str(shutil.which("systemctl")))
    path = {"as it is": served.env["PATH"], "missing": str(folder)}.get(loginctl, f"{folder}:{served.env['PATH']}")
    if loginctl == "fails in silence":
        (folder / "loginctl").write_text("#!/bin/sh\nexit 1\n")
        (folder / "loginctl").chmod(0o755)
    script = 'mount -t tmpfs tmpfs /var/lib/systemd; PATH=$1; shift; exec "$@" install --linger'
    done = manager.inside("unshare", "-m", "sh", "-c", script, "sh", path, *PROGRAM)
    assert done.returncode == 1
    assert done.stderr.startswith("linger was not turned on: ")
    assert done.stderr.endswith("  next: sudo loginctl enable-linger root\n")
    assert manager.pid


def test_uninstall_where_the_manager_has_gone(served: Home, manager: UserManager) -> None:
    """The files go all the same, and the links to them."""
    manager.meshctl("service", "install")
    manager.close()
    done = served.run("service", "uninstall")
    assert done.returncode == 0
    assert "only the files are removed: systemd does not run for this user, or cannot be reached: " in done.stdout
    left = {path.name for path in manager.unit().parent.rglob("*") if not path.is_dir() or path.is_symlink()}
    assert left == {"test.conf"}


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="systemd is not installed")
@pytest.mark.parametrize("action", ["install", "start", "stop", "restart", "status"])
def test_where_no_manager_runs_it_is_said_with_what_to_do_instead(lone: Home, action: str) -> None:
    done = lone.run("service", action)
    assert (done.returncode, lone.state.exists()) == (1, False)
    said = done.stdout if action == "status" else done.stderr
    assert said.startswith("systemd does not run for this user, or cannot be reached: ")
    assert "without a service: nothing is needed: the daemon starts with the first command" in said
    as_json = json.loads(lone.run("service", action, "--json").stdout)
    assert as_json["trouble"] if action == "status" else as_json["error"]["data"]["kind"] == "no_service_manager"


def test_where_no_manager_is_installed_it_is_said_with_what_to_do_instead(lone: Home, tmp_path: Path) -> None:
    done = lone.run("service", "install", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        "there is no systemd here, and no other service manager that agent-mesh knows\n"
        "  next: nothing is needed: the daemon starts with the first command; "
        "`meshctl up` in ~/.profile starts it at login\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("instal",), "meshctl service: no action 'instal'\n  next: did you mean install?\n"),
        (("xyzzy",), "meshctl service: no action 'xyzzy'\n  next: one of: install, uninstall, start, stop, "),
        ((), "meshctl service: the following arguments are required: ACTION\n"),
    ],
)
def test_a_usage_error(lone: Home, arguments: tuple[str, ...], said: str) -> None:
    done = lone.run("service", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
