"""`meshctl service status`: what the manager has, what it runs, and what is not as it was installed."""

from __future__ import annotations

from typing import Any

from meshctl.service.actions import Told
from meshctl.service.manager import Manager, NoManager
from meshctl.service.marked import MISSING, OLD, SAME


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
        found |= {"running": state.pid is not None and state.active == "active", **state._asdict()}
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
        if state != SAME and found["installed"]:
            told.say(
                f"{path}: {state}\n  next: meshctl service install" + ("" if state in (OLD, MISSING) else " --force")
            )
    if not found["installed"]:
        told.say("not installed\n  next: meshctl service install")
        return 1
    if found["trouble"]:
        return 1
    pid = f", pid {found['pid']}" if found["pid"] else ""
    told.say(f"{manager.name}: {found['active']}{pid}" + (f": {found['said']}" if found["said"] else ""))
    told.say(f"file: {found['installed']}")
    told.say("starts at login" if found["enabled"] else "does not start at login\n  next: meshctl service install")
    if found["restarts"]:
        told.say(f"started again {found['restarts']} times after a failure")
    lasting = found["lasting"]
    if lasting["lasts"]:
        told.say("goes on after logout")
    elif lasting["command"]:
        told.say(f"ends at logout\n  next: {lasting['command']}")
    if not found["running"]:
        told.say("  next: meshctl service start")
    return 0 if found["running"] else 3
