"""Each hosted agent: is it received for, is the name held, and is somebody told of its mail."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

from meshctl import skew
from meshctl.doctor import files
from meshctl.doctor.facts import Facts
from meshctl.doctor.finding import Finding, quote
from meshctl.doctor.shell import redis_cli
from meshctl.doctor.store import Answers
from meshd import paths
from meshd.commands.tables import duration
from meshd.core.names import Keys

AREA = "agents"
LATE = 60.0  # seconds of catching up
LONG = 600.0  # seconds that mail waits for somebody who was told of it, or can be told by nobody


def check(facts: Facts, store: Answers) -> Iterator[Finding]:
    status = facts.status
    if status is None:
        return
    # Of a file that cannot be used now it is said there; here, that the daemon has not looked since it was mended.
    broken = [found for found in files.lists(paths.state_dir()) if found.level == "error"]
    if status.get("trouble") and not broken:
        yield Finding("error", AREA, f"no agent is hosted: {status['trouble']}", skew.restart(facts.managed_by))
    for name, why in status["refused"].items():
        if not list(files.journal_of(paths.journal(name))):
            yield Finding("error", AREA, f"{name} is not hosted: {why}", f"meshctl register {quote(name)}")
    findings = [found for agent in status["agents"] for found in _agent(agent, facts, store)]
    if trouble := (status.get("group") or {}).get("trouble"):
        next_ = _mend(trouble, facts, lambda keys: keys.group)
        findings.append(Finding("error", AREA, f"broadcasts are not received: {trouble}", next_))
    yield from findings
    if (status.get("mcp") or {}).get("trouble"):
        yield Finding("error", AREA, f"MCP sessions are not served: {status['mcp']['trouble']}", "meshctl logs -n 50")
    hosted = len(status["agents"])
    if hosted and status["store"]["state"] == "up" and not findings:
        yield Finding("ok", AREA, f"mail is received for {hosted} agent{'' if hosted == 1 else 's'}")


def _agent(agent: dict[str, Any], facts: Facts, store: Answers) -> Iterator[Finding]:
    name, now = agent["name"], time.time()
    lasts = duration(now - agent["since"]) if "since" in agent else "?"
    if agent["trouble"]:
        next_ = _mend(agent["trouble"], facts, lambda keys: keys.inbox(name))
        yield Finding("error", AREA, f"{name}: {agent['trouble']} (for {lasts})", next_)
    elif agent["state"] == "catching up" and now - agent.get("since", now) > LATE:
        what = f"{name}: its reader has been catching up for {lasts}"
        yield Finding("warning", AREA, what, skew.restart(facts.managed_by))
    if name in store.leases and facts.hello is not None and store.leases[name] != facts.hello["instance"]:
        held = "another daemon holds the name" if store.leases[name] else "nobody holds the name in the store"
        more = " --takeover" if store.leases[name] else ""
        yield Finding("error", AREA, f"{name}: {held}", f"meshctl register {quote(name)}{more}")
    yield from _left(name)
    yield from _waking(agent, now)


def _left(name: str) -> Iterator[Finding]:
    """Files of agent-mesh 0.1 that stayed behind: what was of use is marked when it is taken over."""
    for file in (f"{name}.id", f"{name}_group.id", f"pending-{name}.jsonl"):
        path = os.path.join(paths.legacy_dir(), file)
        try:
            status = os.stat(path)
        except OSError:
            continue
        if status.st_size or not stat.S_ISREG(status.st_mode):
            what = f"{name}: {path} of agent-mesh 0.1 was not taken over: it was of no use, or 0.1 is still in use"
            yield Finding("warning", AREA, what, f"mv {quote(path)} {quote(path + '.old')}")


def _waking(agent: dict[str, Any], now: float) -> Iterator[Finding]:
    name, wake = agent["name"], agent["wake"]
    read = f"meshctl inbox {quote(name)}"
    for rung, why in wake["failed"].items():
        yield Finding("warning", AREA, f"{name}: it could not be woken by its {rung}: {why}", read)
    since = wake["waiting_since"]
    if since is None or now - since < LONG:
        return
    waited = f"{agent['unread']} unread, the oldest for {duration(now - since)}"
    if wake["armed"]:
        what = f"{name}: {waited}; it was woken by {', '.join(wake['armed'])} and does not read"
    else:
        what = f"{name}: {waited}, and no session is there that could be woken"
    yield Finding("warning", AREA, what, read)


def _mend(trouble: str, facts: Facts, stream: Callable[[Keys], str]) -> str:
    if "WRONGTYPE" in trouble and facts.settings is not None:
        key = stream(Keys(facts.settings.prefix))
        return f"{redis_cli(facts)} rename {quote(key)} {quote(key + '.wrong')}"  # something else stands there
    if trouble.startswith("cannot write in "):
        return f"df -h {quote(trouble.removeprefix('cannot write in ').rpartition(': ')[0])}  # make room there"
    return "meshctl logs -n 50"
