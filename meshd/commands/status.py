"""status, up, metrics: does it work, for whom not, and since when."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from meshd import __version__, paths
from meshd.commands.base import Call, Command, Params, Printed, Result
from meshd.commands.tables import duration, shown_worked, table
from meshd.observing import metrics
from meshd.service.manager import managed_by
from meshd.system import clock

if TYPE_CHECKING:
    from meshd.hosting.configuration import Configuration
    from meshd.hosting.names import Names
    from meshd.observing.events import EventHub
    from meshd.receiving.agent import Agent
    from meshd.receiving.broadcasts import GroupReader
    from meshd.service.mcp_process import GatewayProcess
    from meshd.store.commands import Commands
    from meshd.store.embedded import Embedded
    from meshd.store.endpoint import Endpoint

UP_TIMEOUT = 5.0
TRIED_TIMEOUT = 2.0  # after its start: a store that has said nothing by then is as good as down
_NAMED = 5  # agents in a sentence; of more, how many


class NoParams(Params):
    pass


class Condition(NamedTuple):
    """What is looked at to tell how the daemon is, and what happens."""

    events: EventHub
    started: float
    names: Names
    commands: Commands
    endpoint: Endpoint
    embedded: Embedded | None
    gateway: GatewayProcess
    group: GroupReader
    configuration: Configuration
    failing: Callable[[], list[str]]


def summary(of: Condition) -> dict[str, Any]:
    """How the daemon is: one JSON object, which `status` shows and `events.subscribe` begins with.

    `ok`: it works for everybody. `trouble` is the daemon's own, with its `hint`.
    """
    commands, gateway, group, names = of.commands, of.gateway, of.group, of.names
    up, refused = commands.up.is_set(), commands.refused
    store: dict[str, Any] = {
        "state": "up" if up else "down",
        "where": of.endpoint.shown,
        "server": " ".join(commands.server) if commands.server else None,
        "since": commands.since,
        "trouble": commands.trouble.message if commands.trouble else None,
        "hint": commands.trouble.hint if commands.trouble else None,
        "refuses": refused.message if refused and up else None,
        "refuses_since": commands.refused_since if refused and up else None,
        "refusals": commands.refusals.summary(clock.wall()),
    }
    if of.embedded is not None:
        store |= {"pid": of.embedded.pid, "restarts": of.embedded.restarts}
    agents = [_agent_summary(agent, up) for agent in names.agents.values()]
    trouble, failing = names.trouble, of.failing()
    some = any(of["recent"] for of in store["refusals"].values())
    well = up and not (some or refused or names.refused or trouble or failing or gateway.trouble or group.trouble)
    return {
        "ok": well and not any(agent["trouble"] for agent in agents),
        "version": __version__,
        "pid": os.getpid(),
        "started": of.started,
        "managed_by": managed_by(),
        "socket": paths.socket_path(),
        "state_dir": paths.state_dir(),
        "trouble": trouble.message if trouble else None,
        "hint": trouble.hint if trouble else None,
        "store": store,
        "prefix": of.configuration.current.prefix,
        "agents": agents,
        "refused": dict(names.refused),
        "failing": failing,
        "group": {"since": group.since, "trouble": group.trouble},
        "mcp": {"pid": gateway.pid, "restarts": gateway.restarts, "trouble": gateway.trouble},
    }


def _agent_summary(agent: Agent, store_up: bool) -> dict[str, Any]:
    # What every agent suffers from while the store is down is said once, of the store.
    trouble = None if agent.health.of_store and not store_up else agent.health.trouble
    if trouble is None and store_up and agent.health.stalled(clock.mono()):
        trouble = "its reader hangs: the disk may not answer"
    if trouble is not None:
        state = "trouble"
    elif not store_up:
        state = "waiting for the store"
    else:
        state = "receiving" if agent.health.caught_up else "catching up"
    return {
        "name": agent.name,
        "role": agent.hosted.role,
        "state": state,
        "since": agent.health.since,
        "trouble": trouble,
        "unread": len(agent.core.inbox.unread),
        "pending": len(agent.core.ledger.entries),
        "lost": agent.core.inbox.losses.total,
        "quarantined": agent.health.quarantined,
        "sessions": agent.sessions,
        "wake": agent.waker.summary(),
        "last_received": agent.health.last_received or None,
        "restarts": agent.health.restarts,
    }


async def up(call: Call, p: NoParams, use: Condition) -> Result:
    """Like `status`, once the store has answered or clearly does not."""
    return await _once(use.commands.up, UP_TIMEOUT, use)


async def status(call: Call, p: NoParams, use: Condition) -> Result:
    return await _once(use.commands.known, TRIED_TIMEOUT, use)


async def _once(known: asyncio.Event, timeout: float, use: Condition) -> Result:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await known.wait()
    return Result(summary(use))


def show_status(data: dict[str, Any]) -> Printed:
    """The answer first, then what it rests on, then one line for each thing that is wrong."""
    store, now = data["store"], clock.wall()
    by = f", by {data['managed_by']}" if data["managed_by"] != "user" else ""
    lines = [
        _verdict(data, now),
        f"meshd {data['version']} is running (pid {data['pid']}{by}), up {duration(now - data['started'])}",
        f"socket: {data['socket']}",
        f"store:  {store['state']} for {duration(now - store['since'])}: {store['where']} "
        f"({store['server'] or 'unknown server'})",
    ]
    if trouble := store["trouble"] or store["refuses"]:
        lines.append(f"        {trouble}")
        lines += [f"        next: {store['hint']}"] if store["hint"] else []
    lines += [_refusals(kind, of, now) for kind, of in store.get("refusals", {}).items()]
    out = "\n".join(lines) + "\n" + _agents(data["agents"], now)
    if not data["agents"] and not data["refused"]:
        out += "agents: none; meshctl register NAME\n"
    out += "".join(_troubles(data["agents"], now))
    out += "".join(_quarantined(agent) for agent in data["agents"])
    out += "".join(_wake_trouble(agent) for agent in data["agents"])
    out += "".join(f"{name} is not hosted: {why}\n" for name, why in data["refused"].items())
    if (group := data.get("group") or {}).get("trouble"):
        out += f"broadcasts are not received: {group['trouble']}\n"
    out += "".join(f"{what}\n" for what in data.get("failing", ()))
    if data["mcp"]["trouble"]:
        out += f"MCP sessions are not served: {data['mcp']['trouble']}\n"
    works = store["state"] == "up" and not store["refuses"]
    return Printed(out + ("" if data["ok"] else "next: meshctl doctor\n"), code=0 if works else 4)


def _refusals(kind: str, of: dict[str, Any], now: float) -> str:
    times = "once" if of["count"] == 1 else f"{of['count']} times"
    return f"        refused {times} ({kind}), the last {duration(now - of['at'])} ago: {of['last']}"


def _verdict(data: dict[str, Any], now: float) -> str:
    """One line: does it work, for whom not, since when."""
    store, agents = data["store"], data["agents"]
    if store["state"] != "up":
        return f"does not work: the store is down for {duration(now - store['since'])}"
    if store["refuses"]:
        return f"does not work: the store refuses writes for {duration(now - store['refuses_since'])}"
    if data["trouble"]:
        return f"does not work: {data['trouble']}"
    bad = [f"{a['name']} (for {duration(now - a['since'])})" for a in agents if a["trouble"]]
    bad += [f"{name} (not hosted)" for name in data["refused"]]
    if (group := data.get("group") or {}).get("trouble"):
        bad.append(f"broadcasts (for {duration(now - group['since'])})")
    if bad:
        return f"works, but not for {few(bad)}"
    if any(of["recent"] for of in store.get("refusals", {}).values()):
        return "works, but the store refuses some writes"
    if data.get("failing"):
        return "works, but a part of the daemon fails"
    if data["mcp"]["trouble"]:
        return "works, but not for MCP sessions"
    late = [f"{a['name']} (for {duration(now - a['since'])})" for a in agents if a["state"] != "receiving"]
    if late:
        return f"works; still catching up: {few(late)}"
    since = max([data["started"], store["since"], *(agent["since"] for agent in agents)])
    return (
        f"works for all {len(agents)} agents, for {duration(now - since)}"
        if len(agents) > 1
        else (f"works, for {duration(now - since)}")
    )


def few(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _agents(agents: list[dict[str, Any]], now: float) -> str:
    if not agents:
        return ""
    rows = [["AGENT", "STATE", "FOR", "UNREAD", "PENDING", "LOST", "SESSIONS", "LAST MAIL", "WAKE", "LAST WAKE"]]
    for agent in agents:
        last = f"{duration(now - agent['last_received'])} ago" if agent["last_received"] else "-"
        numbers = [str(agent[key]) for key in ("unread", "pending", "lost", "sessions")]
        wake = agent["wake"]
        state = [agent["name"], agent["state"], duration(now - agent["since"])]
        rows.append([*state, *numbers, last, _shown_wake(wake), shown_worked(wake["worked"])])
    return table(rows)


def _troubles(agents: Iterable[dict[str, Any]], now: float) -> Iterable[str]:
    """One line for each trouble, whatever number of agents has it."""
    suffering: dict[str, list[dict[str, Any]]] = {}
    for agent in agents:
        if agent["trouble"]:
            suffering.setdefault(agent["trouble"], []).append(agent)
    for trouble, having in suffering.items():
        yield f"{few([agent['name'] for agent in having])}: {trouble}\n"


def _shown_wake(wake: dict[str, Any]) -> str:
    """The rungs that are armed, the one that rings marked; `busy` if the session is told between its steps."""
    rungs = [f"{rung}*" if rung == wake["ringing"] else rung for rung in wake["armed"]]
    return ",".join([*rungs, *(["busy"] if wake["busy"] else [])]) or "-"


def _quarantined(agent: dict[str, Any]) -> str:
    number = agent.get("quarantined", 0)
    many = "1 entry" if number == 1 else f"{number} entries"
    return f"{agent['name']}: {many} could not be taken in, and stand in quarantine\n" if number else ""


def _wake_trouble(agent: dict[str, Any]) -> str:
    name, wake = agent["name"], agent["wake"]
    said = "".join(f"{name}: the {rung} rung failed: {why}\n" for rung, why in wake["failed"].items())
    if wake["ringing"] and wake["waiting_since"] is not None:
        waited = duration(clock.wall() - wake["waiting_since"])
        said += f"{name}: woken by {wake['ringing']}, and has not read its mail for {waited}\n"
    return said


async def show_metrics(call: Call, p: NoParams, use: Condition) -> Result:
    return Result({"text": metrics.render(summary(use))})


COMMANDS = [
    Command(
        "status",
        NoParams,
        status,
        show_status,
        "does it work, for whom not, since when",
        "meshctl status",
        starts_daemon=False,
        needs=Condition,
    ),
    Command("up", NoParams, up, show_status, "start the daemon if it is not running", "meshctl up", needs=Condition),
    Command(
        "metrics",
        NoParams,
        show_metrics,
        lambda data: Printed(data["text"]),
        "the same in numbers, as Prometheus reads them",
        "meshctl metrics",
        starts_daemon=False,
        needs=Condition,
    ),
]
