"""The service: is it as it was installed, does its manager run it, and does it outlive a logout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshctl.doctor.facts import Facts
from meshctl.doctor.finding import Finding
from meshctl.install.files import NotChanged
from meshctl.service import here
from meshctl.service.contract import LOG, NoManager, cure
from meshctl.service.marked import SAME, mend
from meshctl.service.report import look
from meshd.service.manager import USER

AREA = "service"
_OFTEN = 3  # restarts after a failure


def check(facts: Facts) -> Iterator[Finding]:
    try:
        found = here.find()
        known = look(found)
    except NoManager as error:
        yield Finding("ok", AREA, f"no service: {error.message}")
        return
    except NotChanged as error:
        yield Finding("warning", AREA, error.message, error.hint)
        return
    if not known["enabled"] and not known["running"] and known.get("active") != "failed":
        what = "not a service that starts at login: the daemon starts with the first command"
        if known["trouble"]:
            yield Finding("ok", AREA, f"{what} ({known['trouble']})")
        else:
            yield Finding("note", AREA, what, "meshctl service install")
        return
    findings = [*_files(known), *_manager(found.name, known, facts)]
    yield from findings
    if all(finding.level == "note" for finding in findings):
        yield Finding("ok", AREA, f"the service of {found.name} is as it should be")
    lasting = known.get("lasting")
    if lasting is None:
        return
    if lasting["lasts"]:
        yield Finding("ok", AREA, "the service goes on after logout")
    elif lasting["command"]:
        yield Finding("note", AREA, "the service ends when its user logs out (no linger)", lasting["command"])


def _files(known: dict[str, Any]) -> Iterator[Finding]:
    for path, state in known["files"].items():
        if state != SAME:
            yield Finding("warning", AREA, f"{path} is {state}", mend(path, state))


def _manager(name: str, known: dict[str, Any], facts: Facts) -> Iterator[Finding]:
    if known["trouble"]:
        # Without its manager the daemon runs all the same, started by the first command.
        level = "error" if facts.hello is None else "warning"
        yield Finding(level, AREA, known["trouble"], known["hint"])
        return
    if not known["enabled"]:
        yield Finding("note", AREA, f"{name} does not start it at login", "meshctl service install")
    if known.get("stale"):
        yield Finding("warning", AREA, f"{name} has not read its files since they changed", "meshctl service restart")
    by_hand = facts.hello is not None and facts.hello.get("managed_by") == USER
    if by_hand:
        what = f"a daemon that was started by hand (pid {facts.pid}) runs beside the service"
        yield Finding("warning", AREA, what, "meshctl service start")
    elif known["active"] == "failed":
        why, hint = cure(known["said"] or known["result"])
        again = f"meshctl service start  # but first: {hint}" if hint else f"{LOG}; meshctl service start"
        yield Finding("error", AREA, f"the service has failed: {why}", again)
    elif not known["running"] and not facts.waits:
        yield Finding("warning", AREA, f"the service is {known['active']}", "meshctl service start")
    if (known["restarts"] or 0) > _OFTEN:
        yield Finding("warning", AREA, f"{name} started it again {known['restarts']} times after a failure", LOG)
