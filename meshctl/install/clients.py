"""What the clients have in common: where things are, and what an entry of ours in a configuration looks like."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import Any, NamedTuple

from meshctl.install.files import NotChanged
from meshctl.install.plugin import NAME, PROGRAM
from meshd.errors import UsageError

ARGS = ["mcp"]


class Target(NamedTuple):
    """What to install, and where. `project`: the current folder, None for the user's configuration."""

    program: str
    project: str | None
    allow_tools: bool = False

    @property
    def scope(self) -> str:
        return "user" if self.project is None else "project"


def target(*, project: bool, allow_tools: bool = False) -> Target:
    return Target(our_program(), _current_folder() if project else None, allow_tools)


def our_program() -> str:
    """The absolute path of this installation's `meshctl`. Raises `NotChanged` if there is none."""
    beside = os.path.join(os.path.dirname(sys.executable), PROGRAM)
    started_as = os.path.abspath(sys.argv[0]) if os.path.basename(sys.argv[0]) == PROGRAM else ""
    for found in (beside, started_as, shutil.which(PROGRAM) or ""):
        if os.path.isabs(found) and os.access(found, os.X_OK) and os.path.isfile(found):
            try:
                found.encode()
            except UnicodeEncodeError:
                raise NotChanged(f"the path {found!a} is not UTF-8", "install agent-mesh somewhere else") from None
            return found
    raise NotChanged(f"no program {PROGRAM} beside {sys.executable}, nor on PATH", "install agent-mesh again")


def _current_folder() -> str:
    try:
        folder = os.getcwd()
    except OSError as error:
        raise NotChanged(f"the current folder is gone: {error.strerror}", "cd to the project") from None
    if os.path.realpath(folder) == os.path.realpath(os.path.expanduser("~")):
        raise UsageError("the home folder is no project: its configuration is the user's", "leave out --project")
    return folder


def is_ours(entry: Any) -> bool:
    """Whether an MCP server's entry runs this program, of this installation or another, or agent-mesh 0.1."""
    if not isinstance(entry, dict):
        return False
    command, args = entry.get("command"), entry.get("args", [])
    if not isinstance(command, str) or not isinstance(args, list):
        return False
    return os.path.basename(command) in (PROGRAM, NAME) and args[:1] in (ARGS, ["serve"])


def is_current(entry: Any, program: str) -> bool:
    """Whether it runs this installation's. Whatever else its owner has put into it is theirs."""
    return bool(entry["command"] == program and entry.get("args") == ARGS)


def refuse_foreign(path: str, entry: Any) -> None:
    """An entry of our name that runs something else is somebody's own. Raises `NotChanged`."""
    if entry is not None and not is_ours(entry):
        raise NotChanged(
            f"{path} has an MCP server named {NAME} that is not ours; it was left as it is",
            f"take the entry {NAME} out of {shlex.quote(path)}, or give it another name; then repeat",
        )
