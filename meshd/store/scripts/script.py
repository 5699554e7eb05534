"""A Lua script beside this module: its parameters have names, which stand once, in Python.

In the Lua file `KEY.name` and `ARG.name` are the key and the argument of that name, `REST` is where the arguments
begin that have none, and `CONST.NAME` is a number that is given here. They are put in when the file is loaded, so
that a name which is not declared fails at once, and costs nothing in the store.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")

_NAMED = re.compile(r"\b(KEY|ARG|CONST)\.(\w+)|\b(REST)\b")


class Invocation(NamedTuple, Generic[T]):
    """A script with its keys and arguments, ready to be called, once or again."""

    script: Script[T]
    keys: tuple[str, ...]
    args: tuple[Any, ...]

    def command(self) -> tuple[Any, ...]:
        """By digest."""
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.args)


class Script(Generic[T]):
    """`name`.lua, called by its digest.

    `keys` and `args` are named tuples whose fields, in their order, are KEYS and ARGV; more of both may follow, and the
    last key may be left out, by an empty text.
    `read` makes the result of a reply and raises `Garbled` if it is not one of this script. `wrote(result)`: whether
    it proves that the store takes writes. `writes`: whether it ever does. `parts`: files of parts/ that stand
    before it, and use its keys and constants.
    """

    def __init__(
        self,
        name: str,
        keys: type[tuple[str, ...]],
        args: type[tuple[Any, ...]],
        read: Callable[[Any], T],
        wrote: Callable[[T], bool] = lambda result: True,
        constants: Mapping[str, int] | None = None,
        *,
        writes: bool = True,
        parts: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.read = read
        self.wrote = wrote
        self.writes = writes
        numbers = {
            "KEY": _numbered("KEYS", keys),
            "ARG": _numbered("ARGV", args),
            "CONST": {key: str(value) for key, value in (constants or {}).items()},
        }
        rest = str(len(numbers["ARG"]) + 1)
        lua = "".join(map(_text, (*(f"parts/{part}" for part in parts), name)))
        self.source = _NAMED.sub(lambda found: rest if found[3] else numbers[found[1]][found[2]], lua).encode()
        self.digest = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()

    def __call__(self, keys: tuple[str, ...], args: tuple[Any, ...]) -> Invocation[T]:
        """Its keys and its arguments, with those that have no name behind them."""
        return Invocation(self, keys if keys[-1] else keys[:-1], args)


def _text(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), f"{name}.lua"), encoding="utf-8") as file:
        return file.read()


def _numbered(table: str, names: type[tuple[Any, ...]]) -> dict[str, str]:
    fields: tuple[str, ...] = names._fields  # type: ignore[attr-defined]
    return {name: f"{table}[{number}]" for number, name in enumerate(fields, 1)}
