"""Claude Code: a plugin with the MCP server, the hooks and a skill; or, without the program, the same in its files.

The plugin lies in a folder of ours, which is registered as a marketplace. Claude Code reads such a plugin in place:
an upgrade writes the folder again.
"""

from __future__ import annotations

import shutil

from meshctl.install import plugin
from meshctl.install.claude_files import (
    OWN_RULE,
    PLUGIN_RULE,
    Change,
    Files,
    allowing,
    forbid,
    hooking,
    serving,
    settings_edit,
    tidy,
    undeclare,
    unhook,
    unserving,
)
from meshctl.install.clients import Target
from meshctl.install.files import NotChanged
from meshctl.install.plugin import ID, NAME
from meshctl.install.steps import Folder, Run, Step, look, needed

TITLE = "Claude Code"
PROGRAM = "claude"


def install(target: Target) -> list[Step]:
    files = Files(target)
    program = shutil.which(PROGRAM)
    declared, enabled = files.declared(), files.enabled()
    if program is None and not enabled:
        servers, changes = serving(files, target), [hooking(target), *allowing(target, OWN_RULE)]
        return needed([servers, settings_edit(files, changes)])
    copy = Folder(plugin.folder(), plugin.files(target.program))
    commands: list[Step] = []
    if program is not None:
        scope = [] if target.project is None else ["--scope", "project"]
        if declared != plugin.folder():
            command = [program, "plugin", "marketplace", "add", plugin.folder(), *scope]
            commands.append(Run(command, [files.settings]))
        if not enabled:
            commands.append(Run([program, "plugin", "install", ID, *scope], [files.settings]))
        elif copy.plan() is not None:
            # Where it is not read in place, as by older versions, this brings the new files to it.
            commands.append(Run([program, "plugin", "update", ID, *scope]))
    # What an installation without the program put in, or agent-mesh 0.1, would be there twice.
    changes = [unhook, *allowing(target, PLUGIN_RULE)]
    return needed([copy, *commands, unserving(files), settings_edit(files, changes)])


def uninstall(target: Target) -> list[Step]:
    files = Files(target)
    program = shutil.which(PROGRAM)
    declared, enabled = files.declared(), look(files.settings, "enabledPlugins", ID) is not None
    elsewhere = files.installed_elsewhere(target)
    commands: list[Step] = []
    changes: list[Change] = [unhook, forbid]
    if declared is not None or enabled:
        if program is None:
            raise NotChanged(
                f"{NAME} is a plugin of Claude Code here, which only `{PROGRAM}` takes out, and it is not on PATH",
                f"put {PROGRAM} on PATH, then repeat",
            )
        scope = [] if target.project is None else ["--scope", "project"]
        if enabled:
            commands.append(Run([program, "plugin", "uninstall", ID, *scope], [files.settings]))
        if declared is not None and elsewhere:
            changes.append(undeclare)  # the command would uninstall it there, too
        elif declared is not None:
            commands.append(Run([program, "plugin", "marketplace", "remove", NAME, *scope], [files.settings]))
        changes.append(tidy)
    steps = needed([*commands, unserving(files)])
    settings = settings_edit(files, changes)
    if commands or settings.plan() is not None:
        steps.append(settings)
    return steps if elsewhere else [*steps, *needed([Folder(plugin.folder(), None)])]


def notes(target: Target) -> list[str]:
    files = Files(target)
    rule = PLUGIN_RULE if files.enabled() else OWN_RULE
    if rule in (look(files.settings, "permissions", "allow") or []):
        return []
    return [
        f"Claude Code asks before a tool of the mesh runs. --allow-tools lets all of them run: it adds\n"
        f'  "{rule}" to permissions.allow in {files.settings}'
    ]
