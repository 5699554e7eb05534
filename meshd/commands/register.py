"""register, deregister: whose mail this daemon receives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta

from meshd.commands.base import AGENTS, HOSTED, Call, Command, Params, Printed, Result, about
from meshd.core.names import check_name
from meshd.errors import UsageError

if TYPE_CHECKING:
    from meshd.hosting.names import Names

MAX_ROLE = 100


class Hosting(NamedTuple):
    """What these commands use."""

    names: Names


class RegisterParams(Params):
    name: Annotated[str, about("the name to host here from now on", AGENTS)]
    role: Annotated[str | None, Meta(description="what this agent does, for who")] = None
    takeover: Annotated[bool, Meta(description="take the name from the daemon that holds it")] = False


async def register(call: Call, p: RegisterParams, use: Hosting) -> Result:
    name = check_name(p.name)
    if p.role is not None and (len(p.role) > MAX_ROLE or not p.role.isprintable()):
        raise UsageError(f"a role is at most {MAX_ROLE} printable characters", "as in --role reviewer")
    agent, taken = await use.names.register(name, role=p.role, takeover=p.takeover)
    data: dict[str, Any] = {"name": name, "role": agent.hosted.role, "unread": len(agent.core.inbox.unread)}
    if taken.previous:
        data["taken_over"] = {"answered": taken.answered}
    return Result(data)


def show_registered(data: dict[str, Any]) -> Printed:
    silent = data.get("taken_over", {}).get("answered") is False
    note = "note: its holder did not answer: what was read there last may come again here\n" if silent else ""
    return Printed(f"registered {data['name']}\n", note)


class DeregisterParams(Params):
    name: Annotated[str, about("the name to give up; its mail stays", HOSTED)]


async def deregister(call: Call, p: DeregisterParams, use: Hosting) -> Result:
    await use.names.unhost(check_name(p.name))
    return Result({"name": p.name})


COMMANDS = [
    Command(
        "register",
        RegisterParams,
        register,
        show_registered,
        "host a name here, across restarts",
        "meshctl register bob --role reviewer",
        needs=Hosting,
    ),
    Command(
        "deregister",
        DeregisterParams,
        deregister,
        lambda data: Printed(f"deregistered {data['name']}\n"),
        "stop hosting a name; its mail stays",
        "meshctl deregister bob",
        needs=Hosting,
    ),
]
