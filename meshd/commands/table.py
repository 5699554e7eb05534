"""The command table: the one place that knows every command."""

from __future__ import annotations

from meshd.commands import asking, daemon, hooks, messages, pending, reading, register, status, watch, who
from meshd.commands.base import Command

COMMANDS: dict[str, Command] = {
    command.name: command
    for module in (messages, reading, watch, asking, register, who, pending, status, daemon, hooks)
    for command in module.COMMANDS
}
# Those that a user is told of.
SHOWN = {name: command for name, command in COMMANDS.items() if not command.hidden}
