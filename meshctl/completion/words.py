"""What the three scripts have in common: which words there are, and what may follow them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeGuard

from meshd import __version__
from meshd.commands.arguments import HELP, JSON, Argument, arguments
from meshd.commands.base import AGENTS, HOSTED, Command

HEADER = f", version {__version__}; made from the command table by: meshctl completion"
HELP_ABOUT = "what a command does"
VERSION_ABOUT = "show the version"
TOP_FLAGS = [
    *((flag, HELP.help) for flag in HELP.flags),
    ("--version", VERSION_ABOUT),
    *((flag, JSON.help) for flag in JSON.flags),
]


def flags(command: Command) -> list[Argument]:
    """All that the command takes with a dash before it."""
    return [*(argument for argument in arguments(command) if argument.flags), JSON, HELP]


def values(command: Command) -> Iterator[tuple[tuple[str, ...], Argument]]:
    """Each value that the command takes, with where it stands: behind one of these options, or by its number."""
    count = 0
    for argument in arguments(command):
        if not argument.flags:
            yield (str(count),), argument
            count += 1
        elif argument.takes_value:
            yield argument.flags, argument


def is_source(complete: str | tuple[str, ...]) -> TypeGuard[str]:
    """Whether it is the daemon that knows the words. Fails for words that a shell would not take as they are."""
    if isinstance(complete, str):
        assert complete in (AGENTS, HOSTED), complete
        return True
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", word) for word in complete), complete
    return False


def quoted(text: str) -> str:
    """In single quotes, for bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"
