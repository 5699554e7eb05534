"""The help of each command, as text that is the same on every terminal and every Python: it is shipped as files, too.

argparse parses, and does not write: what it writes has another form in each version, and the terminal's width.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from meshd.commands.arguments import HELP, JSON, Argument, arguments
from meshd.commands.base import Command
from meshd.commands.table import COMMANDS, SHOWN

PROGRAM = "meshctl"
WIDTH = 78  # columns
_COLUMN = 24  # where what is said of an argument begins, at most
_USAGE = "usage: "
OVERVIEW = "all-commands"  # no command can be named so


def texts() -> dict[str, str]:
    """The help of every command by its name, and the overview of all by `OVERVIEW`."""
    return {OVERVIEW: overview()} | {name: describe(command) for name, command in COMMANDS.items()}


def overview() -> str:
    """What `meshctl --help` prints."""
    width = max(map(len, SHOWN))
    rows = "".join(f"  {name.ljust(width)}  {command.help}\n" for name, command in SHOWN.items())
    return (
        f"usage: {PROGRAM} COMMAND … [--json]\n\nMessages between coding agents, on one machine or many.\n\n"
        f"{rows}\n{PROGRAM} COMMAND --help tells more about each.\n\nexample:\n"
        f'  {PROGRAM} register bob && {PROGRAM} send bob "hello" && {PROGRAM} inbox bob\n'
    )


def describe(command: Command) -> str:
    """What `meshctl COMMAND --help` prints."""
    taken = [*arguments(command), JSON]
    placed = [(_name(a), a.help) for a in taken if not a.flags]
    options = [("-h, --help", "show this help message and exit"), *((_name(a), a.help) for a in taken if a.flags)]
    column = min(max(len(name) for name, _ in [*placed, *options]) + 4, _COLUMN)
    parts = [usage(command), f"{command.help}\n"]
    parts += [f"{title}:\n{_rows(rows, column)}" for title, rows in (("positional arguments", placed),) if rows]
    parts += [f"options:\n{_rows(options, column)}", f"example:\n  {command.example}\n"]
    return "\n".join(parts)


def usage(command: Command) -> str:
    """What it takes, in lines that end with a newline."""
    taken = [*arguments(command), JSON]
    options = [f"[{HELP.flags[0]}]", *(f"[{_typed(a.flags[0], a)}]" for a in taken if a.flags)]
    placed = [_name(a) if a.required else f"[{_name(a)}]" for a in taken if not a.flags]
    start = f"{_USAGE}{PROGRAM} {command.name}"
    whole = " ".join([start, *options, *placed])
    if len(whole) <= WIDTH:
        return f"{whole}\n"
    indent = " " * (len(start) + 1)
    lines = [*_filled(options, len(indent)), *_filled(placed, len(indent))]
    return f"{start} " + f"\n{indent}".join(lines) + "\n"


def _name(argument: Argument) -> str:
    """How it is written where it is described."""
    if not argument.flags:
        return argument.metavar if argument.required else argument.field
    return ", ".join(_typed(flag, argument) for flag in argument.flags)


def _typed(flag: str, argument: Argument) -> str:
    return f"{flag} {argument.metavar}" if argument.takes_value else flag


def _filled(parts: Iterable[str], indent: int) -> Iterator[str]:
    """Lines of whole parts that have room behind so many columns."""
    line = ""
    for part in parts:
        if line and indent + len(line) + 1 + len(part) > WIDTH:
            yield line
            line = part
        else:
            line = f"{line} {part}" if line else part
    if line:
        yield line


def _rows(rows: list[tuple[str, str]], column: int) -> str:
    text = ""
    for name, said in rows:
        lines = textwrap.wrap(" ".join(said.split()), WIDTH - column)
        head = f"  {name}"
        if len(head) > column - 2:
            text += f"{head}\n"
            head = ""
        text += f"\n{' ' * column}".join([head.ljust(column) + lines[0], *lines[1:]]) + "\n"
    return text
