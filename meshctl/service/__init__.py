"""`meshctl service`: the daemon at login, run by the manager of this platform.

Each action may be repeated: what is so already is left alone. What is done is said as it is done.
"""

from __future__ import annotations

import difflib
from typing import Any

from meshctl.service import here
from meshctl.service.actions import Told, install, restart, start, stop, uninstall
from meshctl.service.contract import Manager, NoManager
from meshctl.service.handover import by_hand, end
from meshctl.service.report import status
from meshd.commands.daemon import SERVICE_ACTIONS
from meshd.control import cli
from meshd.errors import MeshError, UsageError
from meshd.service.manager import USER

__all__ = ["after_down", "before_down", "end", "run"]

_ACTIONS = {"start": start, "stop": stop, "restart": restart}


def run(params: Any, *, as_json: bool) -> int:
    """Carry out one action. The exit code. Raises `MeshError`."""
    action = params.action
    if action not in SERVICE_ACTIONS:
        near = difflib.get_close_matches(action, SERVICE_ACTIONS, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(SERVICE_ACTIONS)}"
        raise UsageError(f"no action {action!a}", hint)
    found = here.find()
    told = Told(found.name, action, silent=as_json)
    try:
        code = _carry_out(found, told, params)
    except MeshError as error:
        error.data["steps"] = told.steps
        raise
    if as_json:
        told.out(cli.encode(told.answer()))
    return code


def _carry_out(found: Manager, told: Told, params: Any) -> int:
    match params.action:
        case "install":
            install(found, told, print_only=params.print, force=params.force, linger=params.linger)
        case "uninstall":
            uninstall(found, told, print_only=params.print, force=params.force)
        case "status":
            return status(found, told)
        case action:
            _ACTIONS[action](found, told)
    return 0


# --- for `meshctl down` ---


def before_down() -> str:
    """Let go of the manager's socket if there is no daemon behind it: to ask there would only start one.

    Its path goes with it, and may be that of a daemon that was started by hand: such one holds the lock.
    """
    found = here.enabled()
    try:
        if found is not None and by_hand(None) is None and found.state().pid is None:
            found.stop()
    except NoManager as error:
        return f"{error.message}\n"
    return ""


def after_down(managed_by: str) -> str:
    """Have the manager not start again what was stopped on purpose. What to tell the user."""
    if managed_by == USER:
        return ""
    try:
        here.find().stop()
    except NoManager as error:
        return f"{managed_by} may start it again: {error.message}\n  next: {error.hint}\n"
    return (
        f"it is a service of {managed_by}: the next login starts it again, and so does a command that needs it\n"
        "  next: meshctl service uninstall, if that is not wanted\n"
    )
