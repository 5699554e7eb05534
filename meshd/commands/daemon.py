"""status, events, reload, down: about the daemon itself. And up, doctor, logs, path, version, demo, which the
client carries out: they must work where no daemon does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from meshd import __version__, paths
from meshd.commands.base import Call, Command, Params, Printed, Result, duration, shown_worked, table
from meshd.errors import TimedOut

if TYPE_CHECKING:
    from meshd.runner import Agent

HEARTBEAT = 15.0
UP_TIMEOUT = 5.0


class NoParams(Params):
    pass


def summary(call: Call) -> dict[str, Any]:
    """How the daemon is: one JSON object, which `status` shows and `events.subscribe` begins with."""
    mesh = call.mesh
    commands = mesh.commands
    store: dict[str, Any] = {
        "state": "up" if commands.up.is_set() else "down",
        "where": mesh.endpoint.shown,
        "server": " ".join(commands.server) if commands.server else None,
        "since": commands.since,
        "trouble": commands.trouble.message if commands.trouble else None,
        "hint": commands.trouble.hint if commands.trouble else None,
    }
    if mesh.embedded is not None:
        store |= {"pid": mesh.embedded.pid, "restarts": mesh.embedded.restarts}
    return {
        "version": __version__,
        "pid": os.getpid(),
        "started": mesh.started,
        "socket": paths.socket_path(),
        "store": store,
        "prefix": mesh.settings.prefix,
        "agents": [_agent_summary(agent, commands.up.is_set()) for agent in mesh.agents.values()],
        "refused": dict(mesh.refused),
    }


def _agent_summary(agent: Agent, store_up: bool) -> dict[str, Any]:
    # What every agent suffers from while the store is down is said once, of the store.
    trouble = None if agent.trouble_of_store and not store_up else agent.trouble
    if trouble is not None:
        state = "trouble"
    elif not store_up:
        state = "waiting for the store"
    else:
        state = "receiving" if agent.caught_up.is_set() else "catching up"
    return {
        "name": agent.name,
        "role": agent.hosted.role,
        "state": state,
        "trouble": trouble,
        "unread": len(agent.core.inbox.unread),
        "pending": len(agent.core.ledger.entries),
        "lost": agent.core.inbox.lost_total,
        "sessions": agent.sessions,
        "wake": agent.waker.summary(),
        "last_received": agent.last_received or None,
        "restarts": agent.restarts,
    }


async def up(call: Call, p: NoParams) -> Result:
    """Like `status`, once the store has answered or clearly does not."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(UP_TIMEOUT):
            await call.mesh.commands.up.wait()
    return Result(summary(call))


async def status(call: Call, p: NoParams) -> Result:
    return Result(summary(call))


def show_status(data: dict[str, Any]) -> Printed:
    store, now = data["store"], time.time()
    what = store["server"] or "unknown server"
    lines = [
        f"meshd {data['version']} is running (pid {data['pid']}), up {duration(now - data['started'])}",
        f"socket: {data['socket']}",
        f"store:  {store['state']} for {duration(now - store['since'])}: {store['where']} ({what})",
    ]
    if store["trouble"]:
        lines.append(f"        {store['trouble']}")
        lines.append(f"        next: {store['hint']}")
    out = "\n".join(lines) + "\n"
    if data["agents"]:
        rows = [["AGENT", "STATE", "UNREAD", "PENDING", "LOST", "SESSIONS", "LAST MAIL", "WAKE", "LAST WAKE"]]
        for agent in data["agents"]:
            last = f"{duration(now - agent['last_received'])} ago" if agent["last_received"] else "-"
            numbers = [str(agent[key]) for key in ("unread", "pending", "lost", "sessions")]
            wake = agent["wake"]
            rows.append(
                [agent["name"], agent["state"], *numbers, last, _shown_wake(wake), shown_worked(wake["worked"])]
            )
        out += table(rows)
    elif not data["refused"]:
        out += "agents: none; meshctl register NAME\n"
    out += "".join(f"{agent['name']}: {agent['trouble']}\n" for agent in data["agents"] if agent["trouble"])
    out += "".join(_wake_trouble(agent) for agent in data["agents"])
    out += "".join(f"{name} is not hosted: {why}\n" for name, why in data["refused"].items())
    return Printed(out, code=0 if store["state"] == "up" else 4)


def _shown_wake(wake: dict[str, Any]) -> str:
    """The rungs that are armed, the one that rings marked; `busy` if the session is told between its steps."""
    rungs = [f"{rung}*" if rung == wake["ringing"] else rung for rung in wake["armed"]]
    return ",".join([*rungs, *(["busy"] if wake["busy"] else [])]) or "-"


def _wake_trouble(agent: dict[str, Any]) -> str:
    name, wake = agent["name"], agent["wake"]
    said = "".join(f"{name}: the {rung} rung failed: {why}\n" for rung, why in wake["failed"].items())
    if wake["ringing"] and wake["waiting_since"] is not None:
        waited = duration(time.time() - wake["waiting_since"])
        said += f"{name}: woken by {wake['ringing']}, and has not read its mail for {waited}\n"
    return said


class EventsParams(Params):
    follow: Annotated[bool, Meta(description="stay, and print events as they come")] = False


async def events(call: Call, p: EventsParams) -> Result:
    """A snapshot, then numbered events, and a heartbeat when nothing happens."""
    hub = call.mesh.events
    subscription = hub.subscribe()
    try:
        await call.emit(Result({"event": "snapshot", "seq": hub.last, "ts": time.time(), "status": summary(call)}))
        while p.follow:
            event = await subscription.next(HEARTBEAT)
            if event is not None:
                await call.emit(Result(event))
            elif subscription.lagged:
                await call.emit(Result({"event": "lagged", "seq": hub.last, "ts": time.time()}))
                raise TimedOut("this subscriber was too slow and has missed events", "subscribe again")
            else:
                await call.emit(Result({"event": "heartbeat", "seq": hub.last, "ts": time.time()}))
    finally:
        hub.unsubscribe(subscription)
    return Result({})


def show_event(item: dict[str, Any]) -> Printed:
    at = time.strftime("%H:%M:%S", time.localtime(item["ts"]))
    facts = " ".join(f"{k}={v}" for k, v in item.items() if k not in ("event", "seq", "ts", "status"))
    return Printed(f"{at} #{item['seq']} {item['event']} {facts}".rstrip() + "\n")


async def reload(call: Call, p: NoParams) -> Result:
    return Result({"said": call.mesh.reload()})


class LogsParams(Params):
    follow: Annotated[bool, Meta(description="stay, and print lines as they come")] = False
    lines: Annotated[int, Meta(description="so many of the last lines first")] = 50


class ServeParams(Params):
    http: Annotated[bool, Meta(description="over HTTP: /mcp, /sse, /health, /metrics")] = False
    port: Annotated[int, Meta(description="the port, with --http")] = 8765
    host: Annotated[str, Meta(description="the address, with --http; any but loopback needs a token")] = "127.0.0.1"


class DemoParams(Params):
    mcp: Annotated[bool, Meta(description="two MCP sessions instead of commands")] = False


class PathParams(Params):
    what: Annotated[str, Meta(description="socket, cache, state, config, log, notify NAME or pending NAME")] = ""
    name: Annotated[str, Meta(description="the agent, for notify and pending")] = ""


class UninstallParams(Params):
    client: Annotated[str, Meta(description="claude, codex or gemini")]
    project: Annotated[bool, Meta(description="the current folder's configuration, not the user's")] = False
    print: Annotated[bool, Meta(description="only show what would be done")] = False
    yes: Annotated[bool, Meta(description="do not ask")] = False


class InstallParams(UninstallParams):
    allow_tools: Annotated[bool, Meta(description="let the client run all tools of the mesh without asking")] = False


def show_nothing(data: dict[str, Any]) -> Printed:
    return Printed()


def _local(
    name: str, what: str, example: str, params: type[Params] = NoParams, short: dict[str, str] | None = None
) -> Command:
    """A command that the client carries out by itself."""
    return Command(name, params, None, show_nothing, what, example, short or {}, starts_daemon=False)


COMMANDS = [
    Command(
        "status",
        NoParams,
        status,
        show_status,
        "how the daemon, its store and its agents are",
        "meshctl status",
        starts_daemon=False,
    ),
    Command(
        "events",
        EventsParams,
        events,
        show_nothing,
        "what happens now",
        "meshctl events -f",
        {"follow": "f"},
        show_item=show_event,
    ),
    Command(
        "reload",
        NoParams,
        reload,
        lambda data: Printed(data["said"] + "\n"),
        "read the configuration again",
        "meshctl reload",
        starts_daemon=False,
    ),
    Command("up", NoParams, up, show_status, "start the daemon if it is not running", "meshctl up"),
    _local("down", "stop the daemon", "meshctl down"),
    _local("doctor", "what is wrong, and the next command to type", "meshctl doctor"),
    _local("logs", "the daemon's log", "meshctl logs -f", LogsParams, {"follow": "f", "lines": "n"}),
    _local("path", "where a file is", "meshctl path notify bob", PathParams),
    _local("version", "the version", "meshctl version"),
    _local("mcp", "the MCP server that a client spawns, on stdio", "meshctl mcp"),
    _local("serve", "the same; with --http, over HTTP", "meshctl serve --http --port 8765", ServeParams),
    _local("demo", "two agents exchange messages, from nothing to nothing", "meshctl demo --mcp", DemoParams),
    _local("install", "put the mesh into a client's configuration", "meshctl install claude --print", InstallParams),
    _local("uninstall", "take it out again", "meshctl uninstall claude", UninstallParams),
]
