"""What is answered without a parser: help, the version, a path, when they are asked for in so many words.

Whatever else stands on the command line, the parser has to judge (meshctl.commands.dispatch); it would say the same of
these, and takes ten times as long to load. The texts of help are files made from the command table
(packaging/generate.py): a test compares them.
"""

import os

from meshctl.client import write

HELP = ("--help", "-h")
TEXTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "help")
OVERVIEW = "all-commands"  # meshd.control.help.OVERVIEW


def answer(arguments: list[str]) -> "int | None":
    """The exit code, or None if it is the parser's to answer."""
    words = [argument for argument in arguments if argument != "--json"]
    as_json = len(words) < len(arguments)
    if not as_json and words in (["help"], ["--help"], ["-h"]):
        return _help(OVERVIEW)
    if len(words) == 2 and not as_json:
        first, second = words
        if first == "help" or second in HELP:
            return _help_of(second if first == "help" else first)
    if any(word.startswith("-") for word in words[1:]):
        return None
    if words in (["version"], ["--version"]):
        from meshctl.commands import version

        return version.run(as_json=as_json)
    if words[:1] == ["path"] and len(words) <= 3:
        from meshctl.commands import path

        what, name = [*words[1:], "", ""][:2]
        return path.run(what, name, as_json=as_json) if path.is_known(what, name) else None
    return None


def _help_of(command: str) -> "int | None":
    # A command's name is of such letters; another word could lead to another file.
    return _help(command) if command.isascii() and command.isalpha() and command.islower() else None


def _help(name: str) -> "int | None":
    try:
        fd = os.open(os.path.join(TEXTS, f"{name}.txt"), os.O_RDONLY)
    except OSError:  # no such command, or an installation without its files
        return None
    try:
        write(1, os.read(fd, 1 << 16))
    finally:
        os.close(fd)
    return 0
