"""The clients: is the mesh in each one's configuration, and is the program there that it names. It only reads files."""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Iterator
from types import ModuleType

from meshctl.doctor.finding import Finding
from meshctl.install import CLIENTS, claude, codex, gemini, plugin
from meshctl.install.claude_files import Files
from meshctl.install.clients import Target, target
from meshctl.install.files import NotChanged
from meshctl.install.steps import look

AREA = "clients"


def check() -> Iterator[Finding]:
    try:
        ours = target(project=False)
    except NotChanged as error:
        yield Finding("error", AREA, error.message, error.hint)
        return
    for name, client in CLIENTS.items():
        try:
            yield from _client(name, client, ours)
        except NotChanged as error:
            yield Finding("warning", AREA, f"{client.TITLE}: {error.message}", error.hint)


def _client(name: str, client: ModuleType, ours: Target) -> Iterator[Finding]:
    program = _program(client, ours)
    if program is None:
        if shutil.which(client.PROGRAM):
            yield Finding("note", AREA, f"{client.TITLE}: the mesh is not installed", f"meshctl install {name}")
        return
    again = f"meshctl install {name} --yes"
    if not os.access(program, os.X_OK):
        yield Finding("error", AREA, f"{client.TITLE} would start {program}, which is not there", again)
    elif program != ours.program:
        yield Finding("warning", AREA, f"{client.TITLE} starts another installation's program, {program}", again)
    elif client.install(ours):
        yield Finding("warning", AREA, f"{client.TITLE}: what was installed is not what this version installs", again)
    else:
        yield Finding("ok", AREA, f"{client.TITLE} starts {program}")


def _program(client: ModuleType, ours: Target) -> str | None:
    """What the client starts for the mesh; None if it is not installed there."""
    if client is claude:
        files = Files(ours)
        if files.enabled():
            copy = os.path.join(plugin.folder(), plugin.MCP)
            return _command(look(copy, "mcpServers", plugin.NAME)) or copy
        return _command(look(files.servers, "mcpServers", plugin.NAME))
    if client is gemini:
        return _command(look(gemini.config(ours), "mcpServers", plugin.NAME, comments=True))
    try:
        with open(codex.config(ours), "rb") as file:
            return _command(tomllib.load(file).get("mcp_servers", {}).get(plugin.NAME))
    except FileNotFoundError:
        return None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise NotChanged(f"cannot read {codex.config(ours)}: {error}", "mend it") from None


def _command(entry: object) -> str | None:
    command = entry.get("command") if isinstance(entry, dict) else None
    return command if isinstance(command, str) else None
