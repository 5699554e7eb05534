"""`meshctl service status`: what the manager has, what it runs, and what is not as it was installed."""

from __future__ import annotations

from typing import Any

from meshctl.service.actions import Told
from meshctl.service.contract import LOG, Manager, NoManager, cure
from meshctl.service.handover import by_hand, listens, other_socket
from meshctl.service.marked import MISSING, SAME, mend
from meshd import paths


def look(manager: Manager) -> dict[str, Any]:
    """All that is known, as facts. `trouble` is what hinders the manager, None if nothing does."""
    files = {file.path: file.state() for file in manager.files()}
    found: dict[str, Any] = {
        "installed": manager.installed(),
        "files": files,
        "enabled": manager.is_enabled(),
        "running": False,
        "trouble": None,
        "hint": None,
    }
    try:
        manager.check()
        state = manager.state()
        found |= {"running": state.running, **state._asdict()}
        found["lasting"] = manager.lasting()
    except NoManager as error:
        found |= {"trouble": error.message, "hint": error.hint}
    return found


def status(manager: Manager, told: Told) -> int:
    """0 running · 3 installed and not running · 1 not installed, or no manager."""
    found = look(manager)
    told.facts |= found
    if found["trouble"]:
        told.say(f"{found['trouble']}\n  next: {found['hint']}")
    for path, state in found["files"].items():
        if state != SAME and (found["installed"] or state != MISSING):
            told.say(f"{path}: {state}\n  next: {mend(path, state)}")
    if not found["installed"]:
        told.say("not installed\n  next: meshctl service install")
        return 1
    if found["trouble"]:
        return 1
    pid = f", pid {found['pid']}" if found["pid"] else ""
    why, hint = cure(found["said"] or found["result"])
    told.say(f"{manager.name}: {found['active']}{pid}" + (f": {why}" if why else ""))
    told.say(f"file: {found['installed']}")
    told.say("starts at login" if found["enabled"] else "does not start at login\n  next: meshctl service install")
    if (times := found["restarts"]) is not None and times > 0:
        told.say(f"started again {'once' if times == 1 else f'{times} times'} after a failure")
    lasting = found["lasting"]
    if lasting["lasts"]:
        told.say("goes on after logout")
    elif lasting["command"]:
        told.say(f"ends at logout\n  next: {lasting['command']}")
    if found["running"] and listens():
        return 0
    if found["running"]:
        told.say(f"nothing listens on {paths.socket_path()}\n  next: {other_socket() or 'meshctl service restart'}")
        return 3
    if (other := by_hand(found["pid"])) is not None:
        told.say(f"a daemon that was started by hand runs (pid {other})")
    if found["active"] == "failed":
        told.say(f"  next: {hint or LOG}; then: meshctl service start")
    else:
        told.say("  next: meshctl service start")
    return 3
