"""`meshctl install` and `meshctl uninstall`: agent-mesh in the configuration of a coding agent's client.

First everything that is to be done is found out and shown; then it is asked for, done step by step, and looked at
again. What is right already is left alone, so each command may be repeated at any time.
"""

from __future__ import annotations

import difflib
import os
import sys
from types import ModuleType
from typing import Any

from meshctl.client import complain, write
from meshctl.install import claude, clients, codex, gemini
from meshctl.install.files import NotChanged
from meshctl.install.steps import Kept, Report, Step
from meshd.control import cli
from meshd.core.text import one_line
from meshd.errors import UsageError

CLIENTS: dict[str, ModuleType] = {"claude": claude, "codex": codex, "gemini": gemini}
_WOULD = {"run": "would run", "edit": "would edit", "write": "would write", "remove": "would remove"}
_DONE = {"run": "ran", "edit": "edited", "write": "wrote", "remove": "removed"}


def run(command: str, params: Any, *, as_json: bool) -> int:
    """Carry out `install` or `uninstall`. The exit code. Raises `MeshError`."""
    installing = command == "install"
    client = _client(params.client)
    target = clients.target(project=params.project, allow_tools=installing and params.allow_tools)

    def find() -> list[Step]:
        steps: list[Step] = (client.install if installing else client.uninstall)(target)
        return steps

    answer: dict[str, Any] = {"client": params.client, "scope": target.scope, "program": target.program}
    steps = find()
    if not steps:
        say = f"{'already' if installing else 'not'} installed for {client.TITLE}{_where(target)}"
        return _end(as_json, answer | {"changed": False, "steps": [], "notes": []}, say)
    plans = [report for step in steps if (report := step.plan()) is not None]
    if params.print:
        if not as_json:
            write(1, "".join(_shown(_WOULD, plan) for plan in plans))
        return _end(as_json, answer | {"changed": False, "steps": _as_json(plans), "notes": []}, "nothing was changed")
    if not params.yes and not _agreed(command, plans):
        return _end(as_json, answer | {"changed": False, "steps": [], "notes": []}, "nothing was changed", 1)
    done: list[Report] = []
    kept: Kept = {}
    try:
        for step in steps:
            if (report := step.apply(kept)) is None:
                continue
            done.append(report)
            if not as_json:
                write(1, _shown(_DONE, report))
    except NotChanged as error:
        error.data["steps"] = _as_json(done)
        raise
    except KeyboardInterrupt:
        complain(f"interrupted after {len(done)} of {len(steps)} steps\n  next: repeat the command, it goes on there\n")
        raise
    if left := find():
        what = "; ".join(one_line(plan.what) for step in left if (plan := step.plan()) is not None)
        raise NotChanged(
            f"every step ended well, and yet this is still to be done: {what}", f"is {client.TITLE} running? repeat"
        )
    notes = _notes(client, target) if installing else [f"Restart running sessions of {client.TITLE}."]
    if not as_json:
        write(1, "\n" + "".join(f"{note}\n" for note in notes) + "\n")
    say = f"{'' if installing else 'un'}installed for {client.TITLE}{_where(target)}"
    return _end(as_json, answer | {"changed": True, "steps": _as_json(done), "notes": notes}, say)


def _client(name: str) -> ModuleType:
    if name in CLIENTS:
        return CLIENTS[name]
    near = difflib.get_close_matches(name, CLIENTS, 1)
    raise UsageError(f"no client {name!a}", f"did you mean {near[0]}?" if near else f"one of: {', '.join(CLIENTS)}")


def _notes(client: ModuleType, target: clients.Target) -> list[str]:
    notes: list[str] = client.notes(target)
    if target.project is not None:
        notes.append(f"The project now names a program of this machine, {target.program}: think before committing it.")
    return [*notes, f"Restart running sessions of {client.TITLE}: they find it when they start."]


def _where(target: clients.Target) -> str:
    return "" if target.project is None else f" in {one_line(target.project)}"


def _agreed(command: str, plans: list[Report]) -> bool:
    """Show what would be done, and ask. Raises `UsageError` if nobody is there to answer."""
    if not os.isatty(0):
        raise UsageError(
            "standard input is no terminal, so nobody can agree; nothing was changed",
            f"meshctl {command} … --yes does it, --print only shows it",
        )
    complain("".join(_shown(_WOULD, plan) for plan in plans) + "\nDo that? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _shown(verbs: dict[str, str], report: Report) -> str:
    head = f"{verbs[report.kind]}: {one_line(report.what)}\n"
    lines = "".join(f"  {one_line(line)}\n" for line in report.lines)
    return head + lines + (f"  backup: {one_line(report.backup)}\n" if report.backup else "")


def _as_json(reports: list[Report]) -> list[dict[str, Any]]:
    return [report._asdict() for report in reports]


def _end(as_json: bool, answer: dict[str, Any], text: str, code: int = 0) -> int:
    write(1, cli.encode(answer) if as_json else f"{text}\n")
    return code
