"""The command table: the one place that knows every command."""

from __future__ import annotations

from meshd.commands import asking, daemon, hooks, messages, names, reading
from meshd.commands.base import Command

COMMANDS: dict[str, Command] = {
    command.name: command for module in (messages, reading, asking, names, daemon, hooks) for command in module.COMMANDS
}
