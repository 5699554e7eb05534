"""events, reload: about the daemon itself. And down, doctor, logs, path, version, demo and more, which the client
carries out: they must work where no daemon does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta

from meshd.commands.base import HOSTED, Call, Command, Params, Printed, Result, about
from meshd.commands.status import Condition, NoParams, summary
from meshd.errors import Lagged
from meshd.system import clock

if TYPE_CHECKING:
    from meshd.hosting.configuration import Configuration

HEARTBEAT = 15.0
PATHS = ("socket", "cache", "state", "config", "log", "notify", "pending")
SHELLS = ("bash", "zsh", "fish")
CLIENTS = ("claude", "codex", "gemini")
SERVICE_ACTIONS = ("install", "uninstall", "start", "stop", "restart", "status")


class EventsParams(Params):
    follow: Annotated[bool, Meta(description="stay, and print events as they come")] = False


async def events(call: Call, p: EventsParams, use: Condition) -> Result:
    """A snapshot, then numbered events, and a heartbeat when nothing happens."""
    hub = use.events
    subscription = hub.subscribe()
    try:
        await call.emit(Result({"event": "snapshot", "seq": hub.last, "ts": clock.wall(), "status": summary(use)}))
        while p.follow:
            event = await subscription.next(HEARTBEAT)
            if event is not None:
                await call.emit(Result(event))
            elif subscription.lagged:
                await call.emit(Result({"event": "lagged", "seq": hub.last, "ts": clock.wall()}))
                raise Lagged("this subscriber was too slow and has missed events", "subscribe again")
            else:
                await call.emit(Result({"event": "heartbeat", "seq": hub.last, "ts": clock.wall()}))
    finally:
        hub.unsubscribe(subscription)
    return Result({})


def show_event(item: dict[str, Any]) -> Printed:
    at = time.strftime("%H:%M:%S", time.localtime(item["ts"]))
    facts = " ".join(f"{k}={v}" for k, v in item.items() if k not in ("event", "seq", "ts", "status"))
    return Printed(f"{at} #{item['seq']} {item['event']} {facts}".rstrip() + "\n")


class Reloading(NamedTuple):
    """What `reload` uses."""

    configuration: Configuration


async def reload(call: Call, p: NoParams, use: Reloading) -> Result:
    return Result({"said": use.configuration.reload()})


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
    what: Annotated[
        str, about("socket, cache, state, config, log, notify NAME or pending NAME", PATHS, positional=True)
    ] = ""
    name: Annotated[str, about("the agent, for notify and pending", HOSTED, positional=True)] = ""


class CompletionParams(Params):
    shell: Annotated[str, about("bash, zsh or fish", SHELLS)]


class UninstallParams(Params):
    client: Annotated[str, about("claude, codex or gemini", CLIENTS)]
    project: Annotated[bool, Meta(description="the current folder's configuration, not the user's")] = False
    print: Annotated[bool, Meta(description="only show what would be done")] = False
    yes: Annotated[bool, Meta(description="do not ask")] = False


class InstallParams(UninstallParams):
    allow_tools: Annotated[bool, Meta(description="let the client run all tools of the mesh without asking")] = False


class ServiceParams(Params):
    action: Annotated[str, about("install, uninstall, start, stop, restart or status", SERVICE_ACTIONS)]
    print: Annotated[bool, Meta(description="with install or uninstall: only show what would be done")] = False
    force: Annotated[bool, Meta(description="replace or remove files that were edited, too; a copy is kept")] = False
    linger: Annotated[bool, Meta(description="with install: go on after logout, and start with the machine")] = False


def show_nothing(data: dict[str, Any]) -> Printed:
    return Printed()


def _local(
    name: str, what: str, example: str, params: type[Params] = NoParams, short: dict[str, str] | None = None
) -> Command:
    """A command that the client carries out by itself."""
    return Command(name, params, None, show_nothing, what, example, short or {}, starts_daemon=False)


COMMANDS = [
    Command(
        "events",
        EventsParams,
        events,
        show_nothing,
        "what happens now",
        "meshctl events -f",
        {"follow": "f"},
        show_item=show_event,
        needs=Condition,
    ),
    Command(
        "reload",
        NoParams,
        reload,
        lambda data: Printed(data["said"] + "\n"),
        "read the configuration again",
        "meshctl reload",
        starts_daemon=False,
        needs=Reloading,
    ),
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
    _local("service", "run it at login, by systemd or launchd", "meshctl service install", ServiceParams),
    _local(
        "completion",
        "the script that completes commands, options and names in a shell",
        "meshctl completion fish > ~/.config/fish/completions/meshctl.fish",
        CompletionParams,
    ),
]
