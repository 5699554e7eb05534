"""The plugin that is shipped, and the copy of it that names an installation."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tomllib
from pathlib import Path

from meshctl.install import plugin
from meshd import __version__

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "packaging" / "claude-plugin"


def test_the_plugin_has_our_version() -> None:
    assert json.loads((SHIPPED / plugin.MANIFESTS[0]).read_text())["version"] == __version__


def test_all_its_files_are_shipped_and_no_others() -> None:
    found = {str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*") if path.is_file()}
    assert found == set(plugin.FILES)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["packaging/claude-plugin"] == "meshctl/claude-plugin"


def test_the_copy_runs_one_program_whatever_its_path(tmp_path: Path) -> None:
    """A shell is given the hooks, nothing is given the server's command; the skill's commands are for a shell."""
    folder = tmp_path / 'it\'s a "$HOME" `x` folder'
    folder.mkdir()
    program = folder / "meshctl"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    files = plugin.files(str(program))
    assert set(files) == set(plugin.FILES)
    server = json.loads(files[plugin.MCP])["mcpServers"]["agent-mesh"]
    assert (server["command"], server["args"]) == (str(program), ["mcp"])
    hooks = [hook for groups in plugin.hooks(str(program)).values() for group in groups for hook in group["hooks"]]
    assert json.loads(files[plugin.HOOKS])["hooks"] == plugin.hooks(str(program))
    assert all(plugin.is_ours(hook) for hook in hooks)
    for attended, expected in (("1", {"hook\n-\n", "hook\n--wait\n-\n"}), ("0", {"hook\n-\n", ""})):
        env = {"CLAUDE_CODE_SESSION_ATTENDED": attended}
        assert {subprocess.check_output(["/bin/sh", "-c", h["command"]], text=True, env=env) for h in hooks} == expected
    skill = files[plugin.SKILL].decode()
    assert f"\n{shlex.quote(str(program))} inbox NAME\n" in skill


def test_a_waiting_hook_wakes_and_outlasts_a_long_idle_time() -> None:
    """Only the waiting ones run beside the session, and only where a turn may be the last for long.

    A session that nobody attends waits for them before it ends: there they must not wait.
    """
    hooks = json.loads((SHIPPED / plugin.HOOKS).read_text())["hooks"]
    waiting = [
        (event, hook)
        for event, groups in hooks.items()
        for group in groups
        for hook in group["hooks"]
        if "--wait" in hook["command"]
    ]
    assert [event for event, _ in waiting] == ["SessionStart", "Stop"]
    assert all("$CLAUDE_CODE_SESSION_ATTENDED" in hook["command"] for _, hook in waiting)
    assert all(hook["asyncRewake"] and hook["timeout"] >= 86400 for _, hook in waiting)
    assert hooks["Notification"][0]["matcher"] == "idle_prompt"
    assert set(hooks) == {"SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd", "Notification"}


def test_the_installed_folder_is_written_again_file_by_file(tmp_path: Path) -> None:
    """What is stale or missing is written, what is not ours goes, and what is right is not touched."""
    from meshctl.install.steps import Folder

    folder = tmp_path / "plugin"
    first = Folder(str(folder), {"a/b": b"1", "c": b"2"})
    first.apply({})
    before = os.stat(folder / "c").st_ino
    (folder / "a" / "b").write_text("x")
    (folder / "old").write_text("x")
    first.apply({})
    assert first.plan() is None
    assert os.stat(folder / "c").st_ino == before
    assert sorted(path.name for path in folder.rglob("*")) == ["a", "b", "c"]
