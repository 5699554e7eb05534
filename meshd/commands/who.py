"""who is there; and complete, which tells a shell the names."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta

from meshd.commands.base import AGENTS, HOSTED, Call, Command, Params, Printed, Result, about
from meshd.commands.tables import duration, shown_worked, table
from meshd.errors import StoreError

if TYPE_CHECKING:
    from meshd.hosting.directory import Directory
    from meshd.receiving.agent import Agent

_PATIENCE = 0.3  # seconds that somebody who has pressed Tab waits for a name from the store


class Looking(NamedTuple):
    """What these commands use."""

    directory: Directory
    agents: dict[str, Agent]


class WhoParams(Params):
    all: Annotated[bool, Meta(description="also names that are gone, for a week")] = False


async def who(call: Call, p: WhoParams, use: Looking) -> Result:
    return Result({"agents": await use.directory.who(everyone=p.all)})


def show_who(data: dict[str, Any]) -> Printed:
    if not data["agents"]:
        return Printed("(no agents registered)\n")
    rows = [["NAME", "ROLE", "HOST", "PID", "UP", "AGE", "SESSION", "UNREAD", "WAKE", "LAST WAKE"]]
    for entry in data["agents"]:
        if not entry.live:
            rows.append([entry.agent, "", f"(gone for {duration(entry.gone_for)})", *[""] * 7])
            continue
        rows.append(
            [
                entry.agent,
                entry.role or "-",
                entry.host or "-",
                str(entry.pid or "-"),
                "-" if None in (entry.since, entry.ts) else duration(entry.age + entry.ts - entry.since),
                "-" if entry.age is None else duration(entry.age),
                "yes" if entry.session else "no",
                "-" if entry.unread is None else str(entry.unread),
                ",".join(entry.wake) or "-",
                shown_worked(entry.worked),
            ]
        )
    return Printed(table(rows))


class CompleteParams(Params):
    what: Annotated[str, about("the names that are wanted", (AGENTS, HOSTED))]


async def complete(call: Call, p: CompleteParams, use: Looking) -> Result:
    """Names, for a shell. Those of the mesh are left out if the store does not tell them at once."""
    names = set(use.agents)
    if p.what == AGENTS:
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_PATIENCE):
                names.update(entry.agent for entry in await use.directory.who())
    return Result({"names": sorted(names)})


def show_names(data: dict[str, Any]) -> Printed:
    return Printed("".join(f"{name}\n" for name in data["names"]))


COMMANDS = [
    Command("who", WhoParams, who, show_who, "who is there", "meshctl who", needs=Looking),
    Command(
        "complete",
        CompleteParams,
        complete,
        show_names,
        "names, for a shell's completion",
        "meshctl complete agents",
        starts_daemon=False,
        hidden=True,
        needs=Looking,
    ),
]
