"""Completion for zsh: a function for `fpath`, which may also be sourced."""

from __future__ import annotations

from collections.abc import Iterator

from meshctl.completion.words import HEADER, HELP_ABOUT, VERSION_ABOUT, flags, is_source, quoted, values
from meshd.commands.arguments import HELP, JSON, Argument
from meshd.commands.base import Command
from meshd.commands.table import SHOWN

_TEMPLATE = """\
#compdef meshctl agent-mesh
# zsh completion of meshctl{header}

_meshctl_names() {{  # names that the daemon knows; no daemon is started
  setopt localoptions extendedglob
  local expl
  local -a names
  names=( ${{(f)"$(command meshctl complete $1 2> /dev/null < /dev/null)"}} )
  names=( ${{(M)names:#[A-Za-z0-9_][A-Za-z0-9_-]#}} )
  _wanted names expl name compadd -a names
}}

_meshctl_commands() {{
  local -a commands
  commands=(
{commands}
  )
  _describe -t commands command commands
}}

_meshctl() {{
  local curcontext=$curcontext state line ret=1
  typeset -A opt_args
  _arguments -C \\
{top} \\
    '1:command:_meshctl_commands' \\
    '*:: :->rest' && ret=0
  [[ $state == rest ]] || return ret
  curcontext=${{curcontext%:*}}-$words[1]:
  case $words[1] in
    help) _arguments '1:command:_meshctl_commands' && ret=0 ;;
{cases}
  esac
  return ret
}}

if [[ $funcstack[1] == _meshctl ]]; then
  _meshctl "$@"
else
  compdef _meshctl meshctl agent-mesh
fi
"""


def script() -> str:
    told = {name: command.help for name, command in SHOWN.items()} | {"help": HELP_ABOUT}
    top = [*_option(HELP, "(- *)"), f"'(- *)--version[{VERSION_ABOUT}]'", *_option(JSON)]
    return _TEMPLATE.format(
        header=HEADER,
        commands="\n".join(f"    {quoted(f'{name}:{_escaped(about)}')}" for name, about in told.items()),
        top=" \\\n".join(f"    {spec}" for spec in top),
        cases="\n".join(_case(name, command) for name, command in SHOWN.items()),
    )


def _case(name: str, command: Command) -> str:
    specs = [spec for argument in flags(command) for spec in _option(argument)]
    specs += [
        quoted(f"{int(place[0]) + 1}:{'' if argument.required else ':'}{_value(argument)}")
        for place, argument in values(command)
        if not argument.flags
    ]
    lines = " \\\n".join(f"        {spec}" for spec in specs)
    return f"    {name})\n      _arguments -s -S \\\n{lines} && ret=0\n      ;;"


def _option(argument: Argument, excludes: str = "") -> Iterator[str]:
    """A spec for each flag; having one of them excludes the others."""
    value = f":{_value(argument)}" if argument.takes_value else ""
    others = excludes or (f"({' '.join(argument.flags)})" if len(argument.flags) > 1 else "")
    for flag in argument.flags:
        equals = "=" if value and flag.startswith("--") else ""
        yield quoted(f"{others}{flag}{equals}[{_escaped(argument.help)}]{value}")


def _value(argument: Argument) -> str:
    """What is asked for, and what may be offered: `message:action`."""
    message = _escaped(argument.metavar.lower())
    if not argument.complete:
        return f"{message}: "
    if is_source(argument.complete):
        return f"{message}: _meshctl_names {argument.complete}"  # the space: it is given no further words
    return f"{message}:({' '.join(argument.complete)})"


def _escaped(text: str) -> str:
    for special in ("\\", "[", "]", ":"):
        text = text.replace(special, "\\" + special)
    return text
