"""Completion for bash, from 3.2 on (macOS), with or without the bash-completion package.

`compgen -W` would expand its words as the shell does, so the daemon's answer never goes near it.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshctl.completion.words import HEADER, TOP_FLAGS, flags, is_source, quoted, values
from meshd.commands.table import SHOWN

_TEMPLATE = """\
# bash completion of meshctl{header}

_meshctl_words() {{  # offers those of the words that begin with $cur
    local IFS=$' \\t\\n' word
    for word in $1; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
}}

_meshctl_names() {{  # offers names that the daemon knows; no daemon is started
    local name
    while IFS= read -r name; do
        case $name in '' | -* | *[!A-Za-z0-9_-]*) continue ;; esac
        [[ $name == "$cur"* ]] && COMPREPLY+=("$name")
    done <<< "$(command meshctl complete "$1" 2> /dev/null < /dev/null)"
}}

_meshctl_flags() {{  # $flags: all options of the command; $taking: those with a value
    case $1 in
{flags}
    esac
}}

_meshctl_value() {{  # $1: the command, and the option or the number of the argument
    case $1 in
{values}
    esac
}}

_meshctl() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} command='' option='' ended='' flags='' taking='' prefix='' count=0 word k
    COMPREPLY=()
    _meshctl_flags ''
    for ((k = 1; k < COMP_CWORD; k++)); do
        word=${{COMP_WORDS[k]}}
        if [[ -n $option ]]; then
            [[ $word == = ]] || option=''  # bash takes --from=bob for three words
        elif [[ -z $ended && $word == -- ]]; then
            ended=1
        elif [[ -z $ended && $word == -* ]]; then
            [[ " $taking " == *" $word "* ]] && option=$word
        elif [[ -z $command ]]; then
            command=$word
            _meshctl_flags "$command"
        else
            count=$((count + 1))
        fi
    done
    if [[ -z $option && -z $ended && $cur == --*=* && " $taking " == *" ${{cur%%=*}} "* ]]; then
        option=${{cur%%=*}} prefix=$option= cur=${{cur#*=}}
    elif [[ -n $option && $cur == = ]]; then
        cur=''
    fi
    if [[ -n $option ]]; then
        _meshctl_value "$command $option"
    elif [[ -z $ended && $cur == -* ]]; then
        _meshctl_words "$flags"
    elif [[ -z $command ]]; then
        _meshctl_words {commands}
    else
        _meshctl_value "$command $count"
    fi
    COMPREPLY=(${{COMPREPLY[@]+"${{COMPREPLY[@]/#/$prefix}}"}})
}}

complete -F _meshctl meshctl agent-mesh
"""


def script() -> str:
    return _TEMPLATE.format(
        header=HEADER,
        flags="\n".join(_flags()),
        values="\n".join(_values()),
        commands=quoted(" ".join([*SHOWN, "help"])),
    )


def _flags() -> Iterator[str]:
    yield f"        '') flags={quoted(' '.join(flag for flag, _ in TOP_FLAGS))} taking='' ;;"
    for name, command in SHOWN.items():
        every = [flag for argument in flags(command) for flag in argument.flags]
        taking = [flag for argument in flags(command) if argument.takes_value for flag in argument.flags]
        yield f"        {name}) flags={quoted(' '.join(every))} taking={quoted(' '.join(taking))} ;;"


def _values() -> Iterator[str]:
    """A case for each kind of value that can be completed, with all the places where it is wanted."""
    places: dict[str | tuple[str, ...], list[str]] = {tuple(SHOWN): ["help 0"]}
    for name, command in SHOWN.items():
        for place, argument in values(command):
            if argument.complete:
                places.setdefault(argument.complete, []).extend(f"{name} {where}" for where in place)
    for complete, wanted in places.items():
        offer = f"_meshctl_names {complete}" if is_source(complete) else f"_meshctl_words {quoted(' '.join(complete))}"
        yield f"        {' | '.join(map(quoted, wanted))}) {offer} ;;"
