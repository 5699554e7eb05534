"""register, deregister, who, pending; and complete, which tells a shell the names."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Annotated, Any

from msgspec import Meta

from meshd.commands.base import (
    AGENTS,
    HOSTED,
    Call,
    Command,
    Params,
    Printed,
    Result,
    about,
    ago,
    duration,
    shown_worked,
    table,
)
from meshd.core.ledger import MAX_PINGS
from meshd.core.names import check_name
from meshd.core.text import cut, one_line
from meshd.errors import StoreError, UsageError

MAX_ROLE = 100
_PATIENCE = 0.3  # seconds that somebody who has pressed Tab waits for a name from the store


class RegisterParams(Params):
    name: Annotated[str, about("the name to host here from now on", AGENTS)]
    role: Annotated[str | None, Meta(description="what this agent does, for who")] = None
    takeover: Annotated[bool, Meta(description="take the name from the daemon that holds it")] = False


async def register(call: Call, p: RegisterParams) -> Result:
    name = check_name(p.name)
    if p.role is not None and (len(p.role) > MAX_ROLE or not p.role.isprintable()):
        raise UsageError(f"a role is at most {MAX_ROLE} printable characters", "as in --role reviewer")
    agent = await call.mesh.host(name, role=p.role, takeover=p.takeover)
    return Result({"name": name, "role": agent.hosted.role, "unread": len(agent.core.inbox.unread)})


class DeregisterParams(Params):
    name: Annotated[str, about("the name to give up; its mail stays", HOSTED)]


async def deregister(call: Call, p: DeregisterParams) -> Result:
    await call.mesh.unhost(check_name(p.name))
    return Result({"name": p.name})


class WhoParams(Params):
    all: Annotated[bool, Meta(description="also names that are gone, for a week")] = False


async def who(call: Call, p: WhoParams) -> Result:
    found = await call.mesh.presence.who(everyone=p.all)
    for entry in found:
        agent = call.mesh.agents.get(entry["agent"])
        if agent is not None and agent.leased:  # ours: as it is now, not as it was registered
            entry["session"] = agent.sessions > 0
            entry["unread"] = len(agent.core.inbox.unread)
            entry["wake"] = agent.wakes
            entry["worked"] = agent.waker.summary()["worked"]
            entry["here"] = True
    return Result({"agents": found})


def show_who(data: dict[str, Any]) -> Printed:
    if not data["agents"]:
        return Printed("(no agents registered)\n")
    rows = [["NAME", "ROLE", "HOST", "PID", "UP", "AGE", "SESSION", "UNREAD", "WAKE", "LAST WAKE"]]
    for entry in data["agents"]:
        if not entry["live"]:
            rows.append([entry["agent"], "", f"(gone for {duration(entry['gone_for'])})", *[""] * 7])
            continue
        rows.append(
            [
                entry["agent"],
                entry["role"] or "-",
                entry["host"] or "-",
                str(entry["pid"] or "-"),
                ago(entry["since"]),
                ago(entry["ts"]),
                "yes" if entry["session"] else "no",
                "-" if entry["unread"] is None else str(entry["unread"]),
                ",".join(entry["wake"]) or "-",
                shown_worked(entry["worked"]),
            ]
        )
    return Printed(table(rows))


class PendingParams(Params):
    name: Annotated[str, about("whose entries", HOSTED)]


async def pending(call: Call, p: PendingParams) -> Result:
    agent = call.hosted(p.name)
    entries = [] if agent is None else list(agent.core.ledger.entries.values())
    shown = [
        {
            "id": entry.id,
            "to": entry.to,
            "text": entry.text,
            "state": entry.state,
            "sent": entry.sent,
            "deadline": entry.deadline,
            "repings": min(entry.pings, MAX_PINGS),
            "next": entry.due or None,
        }
        for entry in entries
    ]
    return Result({"name": p.name, "entries": shown})


def show_pending(data: dict[str, Any]) -> Printed:
    if not data["entries"]:
        return Printed("(no pending entries)\n")
    now = time.time()
    rows = [["ID", "TO", "STATE", "DUE", "RE-PINGS", "TEXT"]]
    for entry in data["entries"]:
        left = entry["deadline"] - now
        due = f"in {duration(left)}" if left > 0 else f"{duration(-left)} ago"
        text = cut(one_line(entry["text"]), 60)
        rows.append([entry["id"], entry["to"], entry["state"], due, f"{entry['repings']}/{MAX_PINGS}", text])
    return Printed(table(rows))


class CompleteParams(Params):
    what: Annotated[str, about("the names that are wanted", (AGENTS, HOSTED))]


async def complete(call: Call, p: CompleteParams) -> Result:
    """Names, for a shell. Those of the mesh are left out if the store does not tell them at once."""
    names = set(call.mesh.agents)
    if p.what == AGENTS:
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_PATIENCE):
                names.update(entry["agent"] for entry in await call.mesh.presence.who())
    return Result({"names": sorted(names)})


def show_names(data: dict[str, Any]) -> Printed:
    return Printed("".join(f"{name}\n" for name in data["names"]))


COMMANDS = [
    Command(
        "register",
        RegisterParams,
        register,
        lambda data: Printed(f"registered {data['name']}\n"),
        "host a name here, across restarts",
        "meshctl register bob --role reviewer",
    ),
    Command(
        "deregister",
        DeregisterParams,
        deregister,
        lambda data: Printed(f"deregistered {data['name']}\n"),
        "stop hosting a name; its mail stays",
        "meshctl deregister bob",
    ),
    Command("who", WhoParams, who, show_who, "who is there", "meshctl who"),
    Command(
        "pending", PendingParams, pending, show_pending, "replies that are owed to an agent", "meshctl pending alice"
    ),
    Command(
        "complete",
        CompleteParams,
        complete,
        show_names,
        "names, for a shell's completion",
        "meshctl complete agents",
        starts_daemon=False,
        hidden=True,
    ),
]
