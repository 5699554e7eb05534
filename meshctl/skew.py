"""A client and a daemon of two versions: what to restart, or what to upgrade, in one sentence.

They work together as far as they can: unknown fields are ignored on both sides, and an unknown command is said.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

from meshctl import rpc
from meshctl.client import complain
from meshd import __version__

if TYPE_CHECKING:
    from meshctl.client import socket

_ASK = 1.0  # seconds


def warn(connection: socket, result: dict[str, Any]) -> None:
    """Say on standard error that the daemon which gave this result is of another version, if it is."""
    if "version" not in result:  # 0.2 and older do not tell
        result = _hello(connection)
    theirs = result.get("version", __version__)
    if theirs != __version__:
        what, command = found(theirs, result.get("managed_by", ""), result.get("pid"))
        complain(f"warning: {what}\n  next: {command}\n")


def _hello(connection: socket) -> dict[str, Any]:
    try:
        with rpc.Calls(connection, _ASK) as asked:
            return asked.call("hello")
    except (OSError, ValueError):
        return {}


def found(theirs: str, managed_by: str, pid: int | None) -> tuple[str, str]:
    """What is so, and the command that mends it, for a daemon of another version that was started that way."""
    if _numbers(theirs) < _numbers(__version__):
        return f"meshd {theirs} runs, older than this meshctl {__version__}: restart it", restart(managed_by)
    newer = _program_beside(pid)
    how = f"export PATH={shlex.quote(os.path.dirname(newer))}:$PATH" if newer else upgrade()
    return f"meshd {theirs} runs, newer than this meshctl {__version__}: use the one that came with it", how


def restart(managed_by: str) -> str:
    """The command that restarts a daemon that was started that way; no message is lost."""
    return "meshctl service restart" if managed_by in ("systemd", "launchd") else "meshctl down && meshctl up"


def upgrade() -> str:
    """The command that upgrades this installation."""
    prefix = sys.prefix
    if f"{os.sep}pipx{os.sep}venvs{os.sep}" in prefix:
        return "pipx upgrade agent-mesh"
    if f"{os.sep}uv{os.sep}tools{os.sep}" in prefix:
        return "uv tool upgrade agent-mesh"
    return f"{shlex.quote(sys.executable)} -m pip install --upgrade agent-mesh"


def _program_beside(pid: int | None) -> str | None:
    """The `meshctl` of the installation that this process runs from, if it is another than ours."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            python = os.fsdecode(file.read().split(b"\0")[0])
    except OSError:
        return None
    program = os.path.join(os.path.dirname(python), "meshctl")
    ours = os.path.dirname(python) == os.path.dirname(sys.executable)
    return program if os.path.isabs(program) and not ours and os.access(program, os.X_OK) else None


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]
