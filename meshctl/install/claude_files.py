"""Claude Code's own configuration: where it is, and what is put into it and taken out of it.

settings.json never holds MCP servers: they stand in `~/.claude.json`, or in a project's `.mcp.json`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from meshctl.install import plugin
from meshctl.install.clients import ARGS, Target, is_current, is_ours, refuse_foreign
from meshctl.install.jsontext import JsonText
from meshctl.install.plugin import ID, NAME
from meshctl.install.steps import Edit, json_edit, look

# Permission rules for all tools of the server: as the plugin's, and as one of the user's own.
PLUGIN_RULE, OWN_RULE = f"mcp__plugin_{NAME}_{NAME}", f"mcp__{NAME}"

Change = Callable[[JsonText], None]


class Files:
    """Where Claude Code keeps its configuration."""

    def __init__(self, target: Target) -> None:
        home = os.path.expanduser("~")
        given = os.environ.get("CLAUDE_CONFIG_DIR")
        self.base = os.path.abspath(given) if given else os.path.join(home, ".claude")
        self.private = target.project is None
        if target.project is None:
            self.settings = os.path.join(self.base, "settings.json")
            old = os.path.join(self.base, ".config.json")
            usual = os.path.join(self.base if given else home, ".claude.json")
            self.servers = old if os.path.exists(old) else usual
        else:
            self.settings = os.path.join(target.project, ".claude", "settings.json")
            self.servers = os.path.join(target.project, ".mcp.json")

    def enabled(self) -> bool:
        return look(self.settings, "enabledPlugins", ID) is True

    def declared(self) -> Any:
        """The folder that our marketplace is declared with, None without one."""
        declared = look(self.settings, "extraKnownMarketplaces", NAME, "source", "path")
        if declared is None and self.enabled():  # older versions write it down only here
            declared = look(os.path.join(self.base, "plugins", "known_marketplaces.json"), NAME, "source", "path")
        return declared

    def installed_elsewhere(self, target: Target) -> bool:
        """Whether the plugin is also installed for the user, or in another project. Claude Code's record, only read."""
        if target.project is not None and look(os.path.join(self.base, "settings.json"), "enabledPlugins", ID):
            return True
        found = look(os.path.join(self.base, "plugins", "installed_plugins.json"), "plugins", ID)
        return any(
            not (entry.get("scope") == target.scope and entry.get("projectPath") in (None, target.project))
            for entry in (found if isinstance(found, list) else [])
            if isinstance(entry, dict)
        )


def settings_edit(files: Files, changes: list[Change]) -> Edit:
    def change(settings: JsonText) -> None:
        for step in changes:
            step(settings)

    return json_edit(files.settings, change, private=files.private)


def serving(files: Files, target: Target) -> Edit:
    """The server in the configuration itself, for when there is no program to ask."""

    def serve(servers: JsonText) -> None:
        entry = servers.get("mcpServers", NAME)
        refuse_foreign(files.servers, entry)
        if entry is None:
            servers.set("mcpServers", NAME, value={"type": "stdio", "command": target.program, "args": ARGS})
        elif not is_current(entry, target.program):
            servers.set("mcpServers", NAME, "command", value=target.program)
            servers.set("mcpServers", NAME, "args", value=ARGS)

    return json_edit(files.servers, serve, private=files.private)


def unserving(files: Files) -> Edit:
    def unserve(servers: JsonText) -> None:
        if is_ours(servers.get("mcpServers", NAME)):
            servers.remove("mcpServers", NAME)

    return json_edit(files.servers, unserve, private=files.private)


def hooking(target: Target) -> Change:
    """The plugin's hooks in settings.json. Hooks that run the same commands are left as their owner has them."""

    def hook(settings: JsonText) -> None:
        wanted = plugin.hooks(target.program)
        commands = [(event, hook["command"]) for event in wanted for group in wanted[event] for hook in group["hooks"]]
        there = [
            (event, settings.get("hooks", event, k, "hooks", n)["command"]) for event, k, n in _our_hooks(settings)
        ]
        if sorted(there) == sorted(commands):
            return
        unhook(settings)
        for event, groups in wanted.items():
            for group in groups:
                settings.append("hooks", event, value=group)

    return hook


def allowing(target: Target, rule: str) -> list[Change]:
    def allow(settings: JsonText) -> None:
        if rule not in settings.items("permissions", "allow"):
            settings.append("permissions", "allow", value=rule)

    return [allow] if target.allow_tools else []


def forbid(settings: JsonText) -> None:
    allowed = settings.items("permissions", "allow")
    for k in reversed(range(len(allowed))):
        if allowed[k] in (PLUGIN_RULE, OWN_RULE):
            settings.remove("permissions", "allow", k)


def undeclare(settings: JsonText) -> None:
    settings.remove("extraKnownMarketplaces", NAME)


def tidy(settings: JsonText) -> None:
    """Take out what the commands leave behind, if it is empty."""
    for key in ("enabledPlugins", "extraKnownMarketplaces"):
        if settings.get(key) == {}:
            settings.remove(key)


def unhook(settings: JsonText) -> None:
    """Take out each hook that runs our program; a group of hooks that is empty then goes, too."""
    for event, k, n in reversed(_our_hooks(settings)):
        # A group may have a matcher beside its hooks, and would not be empty without them.
        alone = len(settings.items("hooks", event, k, "hooks")) == 1
        settings.remove("hooks", event, k, *(() if alone else ("hooks", n)))


def _our_hooks(settings: JsonText) -> list[tuple[str, int, int]]:
    """Event, group and place of each hook that runs our program."""
    return [
        (event, k, n)
        for event in settings.keys("hooks")
        for k in range(len(settings.items("hooks", event)))
        for n, hook in enumerate(settings.items("hooks", event, k, "hooks"))
        if plugin.is_ours(hook)
    ]
