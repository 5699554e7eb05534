"""Codex: a table in `config.toml`.

`codex mcp add` is not used, for three things that it does (0.169): it drops comments of the tables around, makes
other line ends and another mode, and throws away what was added to an entry that it replaces. And it cannot write
`env_vars`, without which Codex hides from our server which mesh the session belongs to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from meshctl.install.clients import ARGS, Target, is_current, refuse_foreign
from meshctl.install.plugin import NAME
from meshctl.install.steps import Step, needed, toml_edit

if TYPE_CHECKING:
    from meshctl.install.tomltable import TomlTable

TITLE = "Codex"
PROGRAM = "codex"
# Codex gives a server HOME, PATH and little else. These decide where our socket, files and store are; the values
# stay the session's own, only the names are written down.
FORWARDED = [
    *(f"AGENT_MESH_{name}" for name in ("NAME", "SOCKET", "PREFIX", "REDIS_URL", "REDIS_URL_FILE", "NO_AUTOSTART")),
    *(f"AGENT_MESH_{name}" for name in ("GATE_ENFORCE", "GATE_LIMIT", "ESCALATE_TO", "MAX_MESSAGE")),
    *(f"XDG_{name}" for name in ("RUNTIME_DIR", "STATE_HOME", "CACHE_HOME", "CONFIG_HOME")),
]
APPROVAL = {"default_tools_approval_mode": "approve"}


def config(target: Target) -> str:
    if target.project is not None:
        return os.path.join(target.project, ".codex", "config.toml")
    home = os.environ.get("CODEX_HOME") or os.path.join(os.path.expanduser("~"), ".codex")
    return os.path.join(os.path.abspath(home), "config.toml")


def install(target: Target) -> list[Step]:
    path = config(target)
    wanted = {"command": target.program, "args": ARGS}

    def change(table: TomlTable) -> None:
        refuse_foreign(path, table.values)
        extra = APPROVAL if target.allow_tools else {}
        if table.values is None:
            table.add({**wanted, "env_vars": FORWARDED, **extra})
            return
        ours = {} if is_current(table.values, target.program) else wanted
        missing = {key: value for key, value in (ours | extra).items() if table.values.get(key) != value}
        if missing:
            table.set(missing)

    return needed([toml_edit(path, "mcp_servers", NAME, change, private=target.project is None)])


def uninstall(target: Target) -> list[Step]:
    path = config(target)

    def change(table: TomlTable) -> None:
        refuse_foreign(path, table.values)
        if table.values is not None:
            table.remove()

    return needed([toml_edit(path, "mcp_servers", NAME, change, private=target.project is None)])


def notes(target: Target) -> list[str]:
    said = []
    if target.project is not None:
        said.append("Codex reads a project's .codex/config.toml only in folders that you have trusted.")
    if not target.allow_tools:
        said.append(
            f"Codex may ask before a tool of the mesh runs. --allow-tools lets all of them run: it sets\n"
            f'  default_tools_approval_mode = "approve" in [mcp_servers.{NAME}]'
        )
    return said
