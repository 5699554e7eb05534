"""What an edit does to the file that it changes, and what is refused without touching it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from meshctl.install import files
from meshctl.install.files import NotChanged
from meshctl.install.steps import json_edit
from tests.install.user import User

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

SETTINGS = ".gemini/settings.json"


def test_mode_and_link_stay_and_a_copy_is_kept(user: User) -> None:
    """The file that a link leads to is replaced, under its mode; the copy is beside the link."""
    real = user.file("dotfiles/gemini.json", '{"a": 1}\n')
    real.chmod(0o640)
    link = user.home / SETTINGS
    link.parent.mkdir()
    link.symlink_to("../dotfiles/gemini.json")
    user.meshctl("install", "gemini", "--yes")
    assert os.readlink(link) == "../dotfiles/gemini.json"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert json.loads(real.read_text())["mcpServers"]
    [copy] = user.backups()
    assert copy.parent == link.parent
    assert (copy.read_text(), stat.S_IMODE(copy.stat().st_mode)) == ('{"a": 1}\n', 0o640)
    user.meshctl("uninstall", "gemini", "--yes")
    assert link.is_symlink()
    assert real.read_text() == '{"a": 1}\n'


def test_a_link_stays_even_when_nothing_is_left(user: User) -> None:
    real = user.file("dotfiles/gemini.json", "")
    link = user.home / SETTINGS
    link.parent.mkdir()
    link.symlink_to(real)
    user.meshctl("install", "gemini", "--yes")
    user.meshctl("uninstall", "gemini", "--yes")
    assert link.is_symlink()
    assert json.loads(real.read_text()) == {}


def test_a_link_to_nothing_yet_is_followed(user: User) -> None:
    link = user.home / SETTINGS
    link.parent.mkdir()
    link.symlink_to(user.home / "dotfiles" / "gemini.json")
    user.meshctl("install", "gemini", "--yes")
    assert link.is_symlink()
    assert json.loads((user.home / "dotfiles" / "gemini.json").read_text())["mcpServers"]


def test_a_new_file_is_private_and_a_projects_is_not(user: User) -> None:
    user.meshctl("install", "gemini", "--yes")
    user.meshctl("install", "gemini", "--yes", "--project")
    assert stat.S_IMODE((user.home / SETTINGS).stat().st_mode) == 0o600
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((user.project / SETTINGS).stat().st_mode) == 0o666 & ~umask
    assert user.backups() == []


BROKEN: dict[str, str | bytes] = {
    "half of it": '{"a": ',
    "a list": "[]",
    "servers in a list": '{"mcpServers": []}',
    "servers in a string": '{"mcpServers": "x"}',
    "no UTF-8": b'{"a": "\xff"}',
    "too deep": b'{"a": ' + b"[" * 50_000,
    "NULs": b"\0" * 10,
}


@pytest.mark.parametrize("client", ["claude", "gemini"])
@pytest.mark.parametrize("command", ["install", "uninstall"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_json_file_is_named_and_left_alone(user: User, client: str, command: str, broken: str) -> None:
    path = user.file({"claude": ".claude.json", "gemini": SETTINGS}[client], BROKEN[broken])
    assert f"{path} " in user.refused(command, client, "--yes")


@pytest.mark.parametrize("command", ["install", "uninstall"])
@pytest.mark.parametrize("broken", ["model = [", "mcp_servers = []", "mcp_servers.agent-mesh = 1", b"a = '\xff'"])
def test_a_broken_toml_file_is_named_and_left_alone(user: User, command: str, broken: str | bytes) -> None:
    path = user.file(".codex/config.toml", broken)
    assert f"{path} " in user.refused(command, "codex", "--yes")


def test_what_is_no_file_is_left_alone(user: User) -> None:
    (user.home / SETTINGS).mkdir(parents=True)
    assert "is not a file" in user.refused("install", "gemini", "--yes")
    (user.home / SETTINGS).rmdir()
    os.mkfifo(user.home / SETTINGS)
    assert "is not a file" in user.refused("install", "gemini", "--yes")


def test_a_file_where_the_folder_belongs_is_left_alone(user: User) -> None:
    user.file(".gemini", "mine")
    assert "Not a directory" in user.refused("install", "gemini", "--yes")


def test_a_read_only_file_is_left_alone(user: User) -> None:
    """Its owner has said what they want; that a rename would get round it is no reason."""
    user.file(SETTINGS, "{}").chmod(0o444)
    assert "is read-only" in user.refused("install", "gemini", "--yes")


@needs_root
@pytest.mark.parametrize("client", ["claude", "codex", "gemini"])
def test_a_read_only_folder_is_named_and_nothing_changes(user: User, client: str) -> None:
    user.file(".codex/config.toml", "a = 1\n")
    user.file(SETTINGS, "{}")
    mount = f"mount --bind {user.home} {user.home} && mount -o remount,bind,ro {user.home}"
    user.through = ["unshare", "-m", "sh", "-c", f'PATH=/usr/bin:/bin; {mount} && exec "$@"', "sh"]
    user.env["PATH"] += ":/usr/bin:/bin"
    assert "Read-only file system" in user.refused("install", client, "--yes")


@needs_root
def test_a_full_disk_is_named_and_nothing_changes(user: User) -> None:
    """Neither a half copy nor a half file is left."""
    text = json.dumps({"k": "x" * 40_000})
    fill = (
        f"mount -t tmpfs -o size=64k small {user.home} && mkdir {user.home}/.gemini && "
        f"cat > {user.home}/{SETTINGS} <<'END'\n{text}\nEND\n"
    )
    after = f"ls -A {user.home}/.gemini; cmp {user.home}/{SETTINGS} - <<'END'\n{text}\nEND\n"
    user.through = ["unshare", "-m", "sh", "-c", f'{fill} "$@"; echo "exit $?"; {after}', "sh"]
    user.env["PATH"] += ":/usr/bin:/bin"
    done = user.run("install", "gemini", "--yes")
    assert "No space left on device" in done.stderr
    assert done.stdout == "exit 1\nsettings.json\n"
    assert "EOF" not in done.stderr


def test_a_file_that_another_program_changes_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"a": 1}')
    edit = json_edit(str(path), lambda settings: settings.set("b", value=1), private=True)
    write = files.back_up

    def back_up_while_another_writes(path: str, data: bytes) -> str:
        copy = write(path, data)
        Path(path).write_text('{"a": 2}')
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meshctl.install.steps.back_up", back_up_while_another_writes)
        with pytest.raises(NotChanged, match="changed by another program"):
            edit.apply({})
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("settings.json", '{"a": 2}')]


def test_copies_made_in_one_second_do_not_replace_each_other(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    copies = {files.back_up(str(path), str(k).encode()) for k in range(5)}
    assert sorted(Path(copy).read_text() for copy in copies) == list("01234")
