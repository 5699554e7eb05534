"""The commands that run here, each loaded only when it is asked for: this loads the daemon's own command table."""

from __future__ import annotations

from typing import Any

from meshctl.printing import show
from meshd.commands.base import Printed
from meshd.control import cli
from meshd.errors import MeshError


def main(arguments: list[str]) -> int:
    """Carry out a local command, or print help or a usage error. The exit code."""
    parsed = cli.parse(arguments)
    if isinstance(parsed, Printed):
        return show(parsed)
    try:
        return _LOCAL[parsed.command.name](parsed)
    except MeshError as error:
        return show(cli.render_error(error, parsed))


def _up(parsed: cli.Parsed) -> int:
    from meshctl.commands import up_down

    return up_down.up(as_json=parsed.json)


def _down(parsed: cli.Parsed) -> int:
    from meshctl.commands import up_down

    return up_down.down(as_json=parsed.json)


def _path(parsed: cli.Parsed) -> int:
    from meshctl.commands import path

    p: Any = parsed.params
    return path.run(p.what, p.name, as_json=parsed.json)


def _logs(parsed: cli.Parsed) -> int:
    from meshctl.commands import logs

    p: Any = parsed.params
    return show(logs.logs(follow=p.follow, count=p.lines, as_json=parsed.json))


def _version(parsed: cli.Parsed) -> int:
    from meshctl.commands import version

    return version.run(as_json=parsed.json)


def _doctor(parsed: cli.Parsed) -> int:
    from meshctl import doctor

    return doctor.run(as_json=parsed.json)


def _mcp(parsed: cli.Parsed) -> int:
    from meshctl import shim

    return shim.run()


def _serve(parsed: cli.Parsed) -> int:
    from meshctl.commands import serve

    return serve.run(parsed.params)


def _demo(parsed: cli.Parsed) -> int:
    from meshctl import demo

    p: Any = parsed.params
    return demo.run(mcp=p.mcp, as_json=parsed.json)


def _install(parsed: cli.Parsed) -> int:
    from meshctl import install

    return install.run(parsed.command.name, parsed.params, as_json=parsed.json)


def _service(parsed: cli.Parsed) -> int:
    from meshctl import service

    return service.run(parsed.params, as_json=parsed.json)


def _completion(parsed: cli.Parsed) -> int:
    from meshctl import completion

    p: Any = parsed.params
    script = completion.script(p.shell)
    return show(Printed(cli.encode({"shell": p.shell, "script": script}) if parsed.json else script))


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
