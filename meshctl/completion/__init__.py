"""The scripts that complete `meshctl` in a shell, made from the command table.

Commands, options and fixed words stand in the script. Names are asked of the running daemon by `meshctl complete`;
what comes back is taken only if it looks like a name, so that nothing in it can be run or break a line.
"""

from __future__ import annotations

from meshctl.completion import bash, fish, zsh
from meshd.errors import UsageError

_SHELLS = {"bash": bash.script, "zsh": zsh.script, "fish": fish.script}


def script(shell: str) -> str:
    """The script for one of `meshd.commands.daemon.SHELLS`. Raises `UsageError` for any other."""
    if shell not in _SHELLS:
        raise UsageError(f"no completion for {shell!a}", f"one of: {', '.join(_SHELLS)}")
    return _SHELLS[shell]()
