"""`meshctl up` and `meshctl down`: the daemon is started, or asked to stop and waited for."""

from __future__ import annotations

from meshctl import service
from meshctl.client import connect, exchange, make_request
from meshctl.printing import show
from meshctl.starting import start
from meshd.commands.base import Printed
from meshd.control import cli
from meshd.errors import TimedOut

DOWN_TIMEOUT = 30.0


def up(*, as_json: bool) -> int:
    connection = connect() or start()
    try:
        return exchange(connection, make_request(["up", *(["--json"] if as_json else [])]))
    finally:
        connection.close()


def down(*, as_json: bool) -> int:
    """Ask the daemon to stop, and wait until it has: the connection ends with it. A manager is told not to mind."""
    note = service.before_down()
    try:
        managed_by = service.end(DOWN_TIMEOUT)
    except OSError as error:
        raise TimedOut(f"meshd did not stop within {DOWN_TIMEOUT:g} s: {error}", "meshctl logs") from None
    if managed_by is not None:
        note = service.after_down(managed_by)
    out = cli.encode({"running": False}) if as_json else "" if managed_by is None else "meshd stopped\n"
    return show(Printed(out, note if managed_by is not None else f"meshd is not running\n{note}"))
