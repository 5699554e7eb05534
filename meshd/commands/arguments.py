"""What a command takes on its command line, made from its parameters.

The parser, the help, the shells' completions and the manual are all made from this, so none of them can know of an
option that another does not.
"""

from __future__ import annotations

import functools
import types
import typing
from typing import Any, NamedTuple

import msgspec

from meshd.commands.base import Command, about

_METAVARS: dict[type, str] = {float: "S", int: "N"}


class Argument(NamedTuple):
    """One parameter as it is typed: by its place if it has no flags.

    `complete` says what a shell may offer for its value: words, or one of `AGENTS` and `HOSTED`.
    """

    field: str
    flags: tuple[str, ...]
    required: bool
    type: type
    default: Any
    metavar: str
    help: str
    complete: str | tuple[str, ...]

    @property
    def takes_value(self) -> bool:
        return not self.flags or self.type is not bool


JSON = Argument("json", ("--json",), False, bool, False, "", "print JSON", ())
HELP = Argument("help", ("-h", "--help"), False, bool, False, "", "show what it does, and an example", ())


@functools.cache
def described_fields(params: type[msgspec.Struct]) -> list[tuple[msgspec.structs.FieldInfo, type, msgspec.Meta]]:
    """Each field of a struct with its type, without `| None`, and what is said about it."""
    hints = typing.get_type_hints(params, include_extras=True)
    return [(field, *_taken_apart(hints[field.name])) for field in msgspec.structs.fields(params)]


def _taken_apart(hint: Any) -> tuple[type, msgspec.Meta]:
    """Type and meta of `Annotated[type | None, Meta(…)]`."""
    meta = about("")
    if typing.get_origin(hint) is typing.Annotated:
        hint, meta = typing.get_args(hint)[:2]
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    return hint, meta


def arguments(command: Command) -> list[Argument]:
    """What the command takes, in the order of its parameters; `JSON` and `HELP`, which all take, are not among it."""
    return [_argument(command, *parts) for parts in described_fields(command.params)]


def _argument(command: Command, field: msgspec.structs.FieldInfo, kind: type, meta: msgspec.Meta) -> Argument:
    extra = meta.extra or {}
    complete = extra.get("complete", ())
    description = meta.description or ""
    if field.required or extra.get("positional"):
        default = None if field.required else field.default
        return Argument(field.name, (), field.required, kind, default, field.name.upper(), description, complete)
    letter = [f"-{command.short[field.name]}"] if field.name in command.short else []
    flags = (*letter, f"--{field.encode_name.replace('_', '-')}")
    if kind not in (bool, str) and field.default is not None:
        description += f" (default: {field.default:g})"
    metavar = "" if kind is bool else _METAVARS.get(kind, field.encode_name.upper())
    return Argument(field.name, flags, False, kind, field.default, metavar, description, complete)
