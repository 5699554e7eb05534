"""What the commands that run here write alike: a result, a refusal, pieces of text as they are or as lines of JSON.

`write` and `complain`, on which it rests, stand in `meshctl.client`: the usual call needs no more than those.
"""

from __future__ import annotations

from meshctl.client import write
from meshd.commands.base import Printed
from meshd.control import cli
from meshd.control.help import PROGRAM
from meshd.errors import UsageError


def show(printed: Printed) -> int:
    """Write it. Its exit code."""
    write(2, printed.err)
    write(1, printed.out)
    return printed.code


def refuse(arguments: list[str], what: str, then: str) -> int:
    """The input was refused before anybody was asked. The exit code."""
    text = f"{PROGRAM}: {what}\n  next: {then}\n"
    return show(cli.refused(arguments, UsageError(what, then), text))


def plain(text: bytes) -> None:
    write(1, text)


class JsonLines:
    """Writes each whole line of what it is given, in pieces, as a JSON object."""

    def __init__(self) -> None:
        self._rest = b""

    def write(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        write(1, "".join(cli.encode({"line": line.decode("utf-8", "replace")}) for line in lines))
