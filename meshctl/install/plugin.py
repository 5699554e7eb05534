"""The plugin for Claude Code: the files that are shipped, and the copy of them that names this installation."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

import platformdirs

from meshctl.install.files import NotChanged, read
from meshd import paths

NAME = "agent-mesh"
ID = f"{NAME}@{NAME}"  # the plugin, and the marketplace that it is in
PROGRAM = "meshctl"
MANIFESTS = (".claude-plugin/plugin.json", ".claude-plugin/marketplace.json")
MCP, HOOKS = ".mcp.json", "hooks/hooks.json"
SKILL = f"skills/{NAME}/SKILL.md"
FILES = (*MANIFESTS, MCP, HOOKS, SKILL)


def folder() -> str:
    """Where the copy is that Claude Code reads. It reads it in place, so this must outlive an upgrade of ours."""
    return os.path.join(platformdirs.user_data_dir(paths.APP, appauthor=False), "claude-plugin")


def files(program: str) -> dict[str, bytes]:
    """The copy's files, with `meshctl` as the absolute path `program`: Claude Code's PATH may not lead there."""
    made = {name: _shipped(name) for name in FILES}
    made[MCP] = _dump({"mcpServers": {NAME: {"command": program, "args": ["mcp"]}}})
    made[HOOKS] = _dump({"hooks": hooks(program)})
    # Commands for the model to type; the word also begins the name of no other program in it.
    made[SKILL] = made[SKILL].replace(f"{PROGRAM} ".encode(), f"{shlex.quote(program)} ".encode())
    return made


def hooks(program: str) -> dict[str, list[dict[str, Any]]]:
    """The shipped hooks: event -> groups, each with the commands that a shell is given."""
    found: dict[str, list[dict[str, Any]]] = json.loads(_shipped(HOOKS))["hooks"]
    for groups in found.values():
        for group in groups:
            for hook in group["hooks"]:
                hook["command"] = hook["command"].replace(f"{PROGRAM} ", f"{shlex.quote(program)} ")
    return found


def is_ours(hook: Any) -> bool:
    """Whether a hook runs our program, of this installation or of another; a condition may stand before it."""
    try:
        words = shlex.split(hook["command"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    words = words[words.index("||") + 1 :] if "||" in words else words
    return len(words) > 1 and os.path.basename(words[0]) in (PROGRAM, NAME) and words[1] == "hook"


def _shipped(name: str) -> bytes:
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # In a wheel within the package; an editable installation has them where the source is.
    for parent in (here, os.path.join(os.path.dirname(here), "packaging")):
        data = read(os.path.join(parent, "claude-plugin", name))
        if data is not None:
            return data
    raise NotChanged(f"the file {name} of the plugin is missing in this installation", "install agent-mesh again")


def _dump(data: Any) -> bytes:
    return json.dumps(data, indent=2).encode() + b"\n"
