"""`meshctl doctor`: what is wrong, one line a finding, each with the command that mends it.

It starts nothing and changes nothing, but for keys in the store that expire in seconds. It ends within ten seconds
whatever hangs: the daemon, the store, the disk, the service manager.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from meshctl.client import write
from meshctl.doctor import agents, clients, configuration, daemon, files, folders, health, service
from meshctl.doctor.facts import Facts
from meshctl.doctor.finding import Finding, quote, shown
from meshctl.doctor.job import Job
from meshctl.doctor.store import ask
from meshd import paths
from meshd.control import cli

TIME = 8.0  # seconds for everything


def run(*, as_json: bool) -> int:
    """Check everything and say it. The exit code: 1 if there is an error among the findings."""
    until = time.monotonic() + TIME
    state = quote(paths.state_dir())
    alone = [
        Job("files", files.check, f"ls -lR {state}"),
        Job("disk", folders.check, f"df -h {state}"),
        Job("clients", clients.check, "ls -la ~"),
    ]
    gathering = Job("daemon", Facts, "meshctl path")
    jobs: list[Job[Any]] = [gathering, *alone]
    facts = gathering.result(until)
    findings: list[Finding] = []
    if facts is not None:
        about_service = Job("service", lambda: service.check(facts), "systemctl --user status meshd")
        about_store = Job("store", lambda: _store(facts), "meshctl logs -n 50")
        jobs += [about_service, about_store]
        findings += [*configuration.check(facts), *daemon.check(facts)]
        for job in (about_service, about_store):
            findings += job.result(until) or []
    for job in alone:
        findings += job.result(until) or []
    findings += [job.said() for job in jobs if job.hangs or job.error is not None]
    code = 1 if any(finding.level == "error" for finding in findings) else 0
    if as_json:
        write(1, cli.encode({"ok": code == 0, "findings": [finding._asdict() for finding in findings]}))
    else:
        write(1, "".join(map(shown, findings)) + _sum(findings))
    if any(job.hangs for job in jobs):
        os._exit(code)  # an interpreter that ends in order would wait for what hangs
    return code


def _store(facts: Facts) -> Iterator[Finding]:
    answers = ask(facts)
    yield from health.check(facts, answers)
    yield from agents.check(facts, answers)


def _sum(findings: list[Finding]) -> str:
    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if not errors and not warnings:
        return "all is well\n"
    counts = [f"{n} {what}{'' if n == 1 else 's'}" for n, what in ((errors, "error"), (warnings, "warning")) if n]
    return f"{' and '.join(counts)}\n"
