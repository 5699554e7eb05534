"""What a unit says and how systemd writes it: words of a command line, variables, and the folders they mean."""

from __future__ import annotations

import ast
import contextlib
import os
import sys

from meshctl.service.contract import NoManager


def runtime_dir() -> str:
    """The manager's, too where nobody has set the variable, as in a job of cron."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def effective(name: str, environment: dict[str, str]) -> str:
    """The folder that the variable means, where one that is not set means a default."""
    value = environment.get(name, "")
    home = environment.get("HOME") or os.path.expanduser("~")
    defaults = {
        "HOME": home,
        "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}",
        "XDG_CONFIG_HOME": os.path.join(home, ".config"),
        "XDG_STATE_HOME": os.path.join(home, ".local", "state"),
        "XDG_CACHE_HOME": os.path.join(home, ".cache"),
    }
    return os.path.normpath(value or defaults[name])


def unquoted(value: str) -> str:
    """A value as `show-environment` prints it: what a shell would have to quote is written as $'…'."""
    if value.startswith("$'") and value.endswith("'"):
        with contextlib.suppress(ValueError, SyntaxError):
            return str(ast.literal_eval(value[1:]))
    return value


def command_line() -> str:
    """What the unit runs: this installation, whatever PATH says. -P: not a folder named meshd where it stands.

    The program's own path takes no variables; the first argument, which Python finds its home by, takes them as every
    other does, and is given apart where that makes a difference (systemd.service(5), "Command lines").
    """
    path = sys.executable
    if not path.isprintable():
        raise NoManager(f"the path of this installation does not fit into a unit: {path!a}", "install it elsewhere")
    program = f"@{quoted(path)} {quoted(path.replace('$', '$$'))}" if "$" in path else quoted(path)
    return f"{program} -P -m meshd"


def quoted(path: str) -> str:
    """One word. The prefix @ of the whole stands before the quotes."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if set(path) & set(" \\\"'%$;") else path
