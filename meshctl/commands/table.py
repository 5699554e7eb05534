"""What the client does by itself: help and usage errors, starting and stopping the daemon, paths, logs.

Imported only when it is needed: it loads the daemon's own command table.
"""

from __future__ import annotations

import sys
from typing import Any

from meshctl.client import connect, exchange, make_request, write
from meshd import __version__, paths
from meshd.commands.base import Printed
from meshd.control import cli
from meshd.core.names import check_name
from meshd.errors import MeshError, TimedOut, UsageError
from meshd.observing import metrics

DOWN_TIMEOUT = 30.0


def main(arguments: list[str]) -> int:
    """Carry out a local command, or print help or a usage error. The exit code."""
    parsed = cli.parse(arguments)
    if isinstance(parsed, Printed):
        return _print(parsed)
    try:
        return _LOCAL[parsed.command.name](parsed)
    except MeshError as error:
        return _print(cli.render_error(error, parsed))


def refuse(arguments: list[str], what: str, then: str) -> int:
    """The input was refused before anybody was asked. The exit code."""
    text = f"{cli.PROGRAM}: {what}\n  next: {then}\n"
    return _print(cli.refused(arguments, UsageError(what, then), text))


def start_for(arguments: list[str], *, resumed: bool) -> Any:
    """A connection to a daemon started for this command, or the exit code if there is to be none.

    Usage errors are said without starting anything. `resumed`: the daemon was there and has gone.
    """
    parsed = cli.parse(arguments)
    if isinstance(parsed, Printed):
        return _print(parsed)
    scripted_who = parsed.command.name == "who" and parsed.json
    if not parsed.command.starts_daemon or scripted_who or not paths.may_start():
        return _not_running(parsed, resumed)
    from meshctl.starting import start

    try:
        return start()
    except MeshError as error:
        return _print(cli.render_error(error, parsed))


def _not_running(parsed: cli.Parsed, resumed: bool) -> int:
    from meshctl.service.here import waiting

    path = paths.socket_path()
    what = "meshd went away before it answered" if resumed else "meshd is not running"
    service = waiting()
    why = f"{service.name} starts it with the next command" if service else f"nothing listens on {path}"
    out = cli.encode({"running": False, "socket": path}) if parsed.json else ""
    if parsed.command.name == "metrics" and not parsed.json:
        out = metrics.render(None)  # a collector wants to know that, too
    return _print(Printed(out, f"{what}: {why}\n  next: meshctl up\n", 4 if resumed else 3))


def _print(printed: Printed) -> int:
    write(2, printed.err)
    write(1, printed.out)
    return printed.code


def _up(parsed: cli.Parsed) -> int:
    from meshctl.starting import start

    connection: Any = connect() or start()
    try:
        return exchange(connection, make_request(["up", *(["--json"] if parsed.json else [])]))
    finally:
        connection.close()


def _down(parsed: cli.Parsed) -> int:
    """Ask the daemon to stop, and wait until it has: the connection ends with it. A manager is told not to mind."""
    from meshctl import service

    note = service.before_down()
    try:
        managed_by = service.end(DOWN_TIMEOUT)
    except OSError as error:
        raise TimedOut(f"meshd did not stop within {DOWN_TIMEOUT:g} s: {error}", "meshctl logs") from None
    if managed_by is not None:
        note = service.after_down(managed_by)
    out = cli.encode({"running": False}) if parsed.json else "" if managed_by is None else "meshd stopped\n"
    return _print(Printed(out, note if managed_by is not None else f"meshd is not running\n{note}"))


def _path(parsed: cli.Parsed) -> int:
    what, name = parsed.params.what, parsed.params.name  # type: ignore[attr-defined]
    plain = {
        "socket": paths.socket_path,
        "cache": paths.cache_dir,
        "state": paths.state_dir,
        "config": paths.config_file,
        "log": paths.daemon_log,
    }
    named = {"notify": paths.notify_log, "pending": paths.journal}
    if what in plain:
        found = {what: plain[what]()}
    elif what in named:
        found = {what: named[what](check_name(name))}
    elif not what:
        found = {key: function() for key, function in plain.items()}
    else:
        raise UsageError(f"no path named {what!a}", f"one of: {', '.join([*plain, *named])}")
    if parsed.json:
        return _print(Printed(cli.encode(found)))
    if what:
        return _print(Printed(f"{found[what]}\n"))
    return _print(Printed("".join(f"{key:7} {value}\n" for key, value in found.items())))


def _logs(parsed: cli.Parsed) -> int:
    from meshctl.commands import logs

    p: Any = parsed.params
    return _print(logs.logs(follow=p.follow, count=p.lines, as_json=parsed.json))


def _version(parsed: cli.Parsed) -> int:
    python = ".".join(map(str, sys.version_info[:3]))
    data = {"version": __version__, "python": python}
    return _print(Printed(cli.encode(data) if parsed.json else f"agent-mesh {__version__}\n"))


def _doctor(parsed: cli.Parsed) -> int:
    from meshctl import doctor

    return doctor.run(as_json=parsed.json)


def _mcp(parsed: cli.Parsed) -> int:
    from meshctl import shim

    return shim.run()


def _serve(parsed: cli.Parsed) -> int:
    """MCP on stdio, as `mcp`; or over HTTP, in this process."""
    p: Any = parsed.params
    if not p.http:
        if (p.host, p.port) != (type(p)().host, type(p)().port):
            raise UsageError("--host and --port are for HTTP", "meshctl serve --http")
        return _mcp(parsed)
    from meshd.mcp.http.address import listen

    address = listen(p.host, p.port)
    if paths.may_start():
        from meshctl.starting import start

        connection: Any = connect() or start()
        connection.close()
    from meshd.mcp.http.serve import run

    return run(address)


def _demo(parsed: cli.Parsed) -> int:
    from meshctl import demo

    return demo.run(mcp=parsed.params.mcp, as_json=parsed.json)  # type: ignore[attr-defined]


def _install(parsed: cli.Parsed) -> int:
    from meshctl import install

    return install.run(parsed.command.name, parsed.params, as_json=parsed.json)


def _service(parsed: cli.Parsed) -> int:
    from meshctl import service

    return service.run(parsed.params, as_json=parsed.json)


def _completion(parsed: cli.Parsed) -> int:
    from meshctl import completion

    shell = parsed.params.shell  # type: ignore[attr-defined]
    script = completion.script(shell)
    return _print(Printed(cli.encode({"shell": shell, "script": script}) if parsed.json else script))


_LOCAL = {
    "up": _up,
    "down": _down,
    "path": _path,
    "logs": _logs,
    "version": _version,
    "doctor": _doctor,
    "demo": _demo,
    "mcp": _mcp,
    "serve": _serve,
    "install": _install,
    "uninstall": _install,
    "completion": _completion,
    "service": _service,
}
