"""Completion for fish, from 3.0 on."""

from __future__ import annotations

from collections.abc import Iterator

from meshctl.completion.words import HEADER, HELP_ABOUT, TOP_FLAGS, flags, is_source, values
from meshd.commands.arguments import Argument
from meshd.commands.table import SHOWN

_TEMPLATE = """\
# fish completion of meshctl{header}

function __meshctl_names  # names that the daemon knows; no daemon is started
    command meshctl complete $argv[1] 2>/dev/null </dev/null | string match -r '^[A-Za-z0-9_][A-Za-z0-9_-]*$'
end

function __meshctl_at  # whether the command is $argv[1], and the argument of number $argv[2] comes next, if given
    set -l command ''
    set -l count 0
    set -l taking
    set -l skip 0
    set -l ended 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if test $ended = 0 -a "$word" = --
            set ended 1
        else if test $ended = 0; and string match -q -- '-*' $word
            contains -- $word $taking; and set skip 1
        else if test -z "$command"
            set command $word
            switch $word
{taking}
            end
        else
            set count (math $count + 1)
        end
    end
    test "$command" = "$argv[1]"; or return 1
    test (count $argv) = 1; or test $count = "$argv[2]"
end

complete -c meshctl -f
complete -c agent-mesh -w meshctl
{entries}
"""
_COMPLETE = "complete -c meshctl"


def script() -> str:
    return _TEMPLATE.format(header=HEADER, taking="\n".join(_taking()), entries="\n".join(_entries()))


def _taking() -> Iterator[str]:
    for name, command in SHOWN.items():
        taking = [flag for argument in flags(command) if argument.takes_value for flag in argument.flags]
        if taking:
            yield f"                case {name}\n                    set taking {' '.join(taking)}"


def _entries() -> Iterator[str]:
    top = f"{_COMPLETE} -n '__meshctl_at \"\"'"
    for flag, about in TOP_FLAGS:
        kind, name = ("-l", flag[2:]) if flag.startswith("--") else ("-s", flag[1:])
        yield f"{top} {kind} {name} -d {_quoted(about)}"
    for name, command in SHOWN.items():
        yield f"{top} -a {name} -d {_quoted(command.help)}"
    yield f"{top} -a help -d {_quoted(HELP_ABOUT)}"
    yield f"{_COMPLETE} -n '__meshctl_at help 0' -a {_quoted(' '.join(SHOWN))}"
    for name, command in SHOWN.items():
        for argument in flags(command):
            yield f"{_COMPLETE} -n '__meshctl_at {name}' {_flag(argument)}"
        for place, argument in values(command):
            if argument.complete and not argument.flags:
                yield f"{_COMPLETE} -n '__meshctl_at {name} {place[0]}' {_offered(argument)}"


def _flag(argument: Argument) -> str:
    names = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in argument.flags]
    value = f" -x {_offered(argument)}".rstrip() if argument.takes_value else ""
    return f"{' '.join(names)}{value} -d {_quoted(argument.help)}"


def _offered(argument: Argument) -> str:
    if not argument.complete:
        return ""
    if is_source(argument.complete):
        return f"-a '(__meshctl_names {argument.complete})'"
    return f"-a {_quoted(' '.join(argument.complete))}"


def _quoted(text: str) -> str:
    """In single quotes, where fish takes a backslash before a quote or a backslash."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
