"""What becomes of a command when no daemon answers: one is started for it, or it is said that none runs."""

from __future__ import annotations

from meshctl.client import socket
from meshctl.printing import show
from meshctl.service.here import waiting
from meshctl.starting import start
from meshd import paths
from meshd.commands.base import Printed
from meshd.control import cli
from meshd.errors import MeshError
from meshd.observing import metrics


def start_for(arguments: list[str], *, resumed: bool) -> socket | int:
    """A connection to a daemon started for this command, or the exit code if there is to be none.

    Usage errors are said without starting anything. `resumed`: the daemon was there and has gone.
    """
    parsed = cli.parse(arguments)
    if isinstance(parsed, Printed):
        return show(parsed)
    scripted_who = parsed.command.name == "who" and parsed.json
    if not parsed.command.starts_daemon or scripted_who or not paths.may_start():
        return _not_running(parsed, resumed)
    try:
        return start()
    except MeshError as error:
        return show(cli.render_error(error, parsed))


def _not_running(parsed: cli.Parsed, resumed: bool) -> int:
    path = paths.socket_path()
    what = "meshd went away before it answered" if resumed else "meshd is not running"
    service = waiting()
    why = f"{service.name} starts it with the next command" if service else f"nothing listens on {path}"
    out = cli.encode({"running": False, "socket": path}) if parsed.json else ""
    if parsed.command.name == "metrics" and not parsed.json:
        out = metrics.render(None)  # a collector wants to know that, too
    return show(Printed(out, f"{what}: {why}\n  next: meshctl up\n", 4 if resumed else 3))
