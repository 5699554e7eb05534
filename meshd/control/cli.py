"""The command line: from arguments to a command and its parameters, from a result to what is printed.

Runs in the daemon, warm, for every `meshctl`; and in the client's own process where there is no daemon.
"""

from __future__ import annotations

import argparse
import difflib
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import msgspec

from meshd.commands.arguments import JSON, Argument, arguments
from meshd.commands.base import Command, Params, Printed
from meshd.commands.table import COMMANDS, SHOWN
from meshd.control import help as helps
from meshd.control.help import PROGRAM
from meshd.core.text import block, one_line
from meshd.errors import MeshError, TimedOut, UsageError


class Parsed(NamedTuple):
    """A command with its parameters, and whether JSON is wanted."""

    command: Command
    params: Params
    json: bool


class _Stop(Exception):
    """argparse wants to print its help and exit."""

    def __init__(self, printed: Printed) -> None:
        super().__init__()
        self.printed = printed


class _Wrong(Exception):
    """The arguments mean nothing; `text` is how a terminal is told."""

    def __init__(self, error: UsageError, text: str) -> None:
        super().__init__()
        self.error = error
        self.text = text


class _Parser(argparse.ArgumentParser):
    def __init__(self, command: Command) -> None:
        super().__init__(prog=f"{PROGRAM} {command.name}", allow_abbrev=False)
        self._command = command

    def error(self, message: str) -> NoReturn:
        usage = helps.usage(self._command).removeprefix("usage: ")
        error = UsageError(one_line(message), f"{self.prog} --help")
        raise _Wrong(error, f"{self.prog}: {error.message}\n  {usage}  next: {error.hint}\n")

    def print_help(self, file: Any = None) -> None:
        raise _Stop(Printed(out=helps.describe(self._command)))

    def values(self, arguments: Sequence[str]) -> dict[str, Any]:
        """By field. Raises `_Stop` or `_Wrong`."""
        try:
            return vars(self.parse_args(arguments))
        except _Stop:
            if {"-h", "--help"} & set(arguments):
                raise
            # Python 3.13 takes -hello for -h with more behind it, and help would have been the answer to a send.
            taken = next((argument for argument in arguments if argument.startswith("-h")), "-h")
            self.error(f"unrecognized arguments: {taken}")


def parse(arguments: Sequence[str]) -> Parsed | Printed:
    """What the arguments mean: a command to run, or a text to print with its exit code."""
    try:
        return _parse(arguments)
    except _Wrong as wrong:
        return refused(arguments, wrong.error, wrong.text)


def refused(arguments: Sequence[str], error: UsageError, text: str) -> Printed:
    """The text; and the error as JSON if the arguments, which need not make sense, ask for that."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return Printed(encode({"error": error.to_rpc()}) if "--json" in options else "", text, error.exit_code)


def _parse(arguments: Sequence[str]) -> Parsed | Printed:
    name, rest = _split(arguments)
    if name == "help" and rest:
        return _parse([rest[0], "--help"])
    if name is None or name == "help":
        if name == "help" or "-h" in rest or "--help" in rest:
            return Printed(out=helps.overview())
        raise _Wrong(UsageError("no command was given", f"{PROGRAM} --help"), helps.overview())
    if name == "--version":
        name = "version"
    command = COMMANDS.get(name or "")
    if command is None:
        near = difflib.get_close_matches(name or "", SHOWN, 1)
        hint = f"did you mean: {PROGRAM} {near[0]}" if near else f"next: {PROGRAM} --help"
        error = UsageError(f"no command {name!a}", hint.removeprefix("next: "))
        raise _Wrong(error, f"{PROGRAM}: {error.message}\n  {hint}\n")
    try:
        values = _parser(command.name).values(rest)
    except _Stop as stop:
        return stop.printed
    except _Wrong as wrong:
        wrong.text += _dash_explained(command, rest)
        raise
    as_json = values.pop("json")
    return Parsed(command, command.params(**values), as_json)


def _dash_explained(command: Command, rest: Sequence[str]) -> str:
    """A text that begins with a dash looks like an option: say how it is given."""
    takes_text = {"message", "text"} & set(command.params.__struct_fields__)
    dashed = takes_text and any(argument.startswith("-") for argument in rest)
    return "        put -- before a text that begins with -\n" if dashed else ""


def _split(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The command's name, and all other arguments; options may stand before it."""
    for k, argument in enumerate(arguments):
        if not argument.startswith("-") or argument == "--version":
            return argument, [*arguments[:k], *arguments[k + 1 :]]
    return None, list(arguments)


@functools.cache
def _parser(name: str) -> _Parser:
    command = COMMANDS[name]
    parser = _Parser(command)
    for argument in [*arguments(command), JSON]:
        _add(parser, argument)
    return parser


def _add(parser: argparse.ArgumentParser, argument: Argument) -> None:
    if argument.required:
        parser.add_argument(argument.field, metavar=argument.metavar)
    elif not argument.flags:
        parser.add_argument(argument.field, nargs="?", default=argument.default)
    elif argument.type is bool:
        parser.add_argument(*argument.flags, dest=argument.field, action="store_true")
    else:
        parser.add_argument(
            *argument.flags,
            dest=argument.field,
            type=argument.type,
            default=argument.default,
            metavar=argument.metavar,
        )


def encode(data: Any) -> str:
    """One JSON document on one line, ASCII: no text in it can reach a terminal as a control."""
    import json

    return json.dumps(data, ensure_ascii=True, default=msgspec.to_builtins) + "\n"


def render(parsed: Parsed, data: dict[str, Any]) -> Printed:
    if parsed.json:
        # The exit code says the same whatever the form; a stream that just ends has told everything in its items.
        return Printed(encode(data) if data else "", code=parsed.command.show(data).code)
    return parsed.command.show(data)


def render_item(parsed: Parsed, item: dict[str, Any]) -> Printed:
    if parsed.json or parsed.command.show_item is None:
        return Printed(encode(item))
    return parsed.command.show_item(item)


def render_error(error: MeshError, parsed: Parsed | None = None) -> Printed:
    """What happened on the first line, what to do next on the second."""
    message = block(error.message)
    text = f"{message}\n" + (f"  next: {block(error.hint)}\n" if error.hint else "")
    if isinstance(error, UsageError) and parsed is not None:
        text = f"{PROGRAM} {parsed.command.name}: {text}"
    if parsed is not None and parsed.json:
        return Printed(encode({"error": error.to_rpc()}), text, error.exit_code)
    if parsed is not None and parsed.command.timeout_on_stdout and isinstance(error, TimedOut):
        return Printed(f"{message}\n", f"  next: {block(error.hint)}\n", error.exit_code)
    return Printed("", text, error.exit_code)
