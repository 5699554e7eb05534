"""Gemini CLI: an entry in `settings.json`, which may hold comments.

A new entry is made by `gemini mcp add` where there is one. An entry that is there is edited here, since the command
would throw away what its owner put into it; and taken out here, since the command leaves an empty object behind.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from meshctl.install.clients import ARGS, Target, is_current, refuse_foreign
from meshctl.install.jsontext import JsonText
from meshctl.install.plugin import NAME
from meshctl.install.steps import Run, Step, json_edit, look, needed

TITLE = "Gemini CLI"
PROGRAM = "gemini"


def config(target: Target) -> str:
    home = target.project or os.environ.get("GEMINI_CLI_HOME") or os.path.expanduser("~")
    return os.path.join(os.path.abspath(home), ".gemini", "settings.json")


def install(target: Target) -> list[Step]:
    path = config(target)
    there = look(path, "mcpServers", NAME, comments=True)
    refuse_foreign(path, there)
    program = shutil.which(PROGRAM)
    if there is None and program is not None:
        trust = ["--trust"] if target.allow_tools else []
        return [Run([program, "mcp", "add", "-s", target.scope, *trust, NAME, target.program, *ARGS], [path])]

    def change(settings: JsonText) -> None:
        entry = settings.get("mcpServers", NAME)
        if entry is None:
            new: dict[str, Any] = {"command": target.program, "args": ARGS}
            settings.set("mcpServers", NAME, value=new | ({"trust": True} if target.allow_tools else {}))
            return
        if not is_current(entry, target.program):
            settings.set("mcpServers", NAME, "command", value=target.program)
            settings.set("mcpServers", NAME, "args", value=ARGS)
        if target.allow_tools and entry.get("trust") is not True:
            settings.set("mcpServers", NAME, "trust", value=True)

    return needed([json_edit(path, change, private=target.project is None, comments=True)])


def uninstall(target: Target) -> list[Step]:
    path = config(target)

    def change(settings: JsonText) -> None:
        refuse_foreign(path, settings.get("mcpServers", NAME))
        settings.remove("mcpServers", NAME)

    return needed([json_edit(path, change, private=target.project is None, comments=True)])


def notes(target: Target) -> list[str]:
    said = ["Gemini CLI starts MCP servers only in folders that you have trusted."]
    if not target.allow_tools:
        said.append(
            f"It asks before a tool of the mesh runs. --allow-tools lets all of them run: it sets\n"
            f'  "trust": true in mcpServers.{NAME}'
        )
    return said
