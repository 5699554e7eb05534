"""watch: the notify log's lines as they come, for a harness whose watch ends and is begun again."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta

from meshd import paths
from meshd.commands.base import HOSTED, Call, Command, Params, Printed, Result, about
from meshd.commands.checks import check_seconds, deadline_in
from meshd.core.names import check_name
from meshd.disk.logcursor import LogCursor
from meshd.errors import ConfigError, Unreadable
from meshd.system import clock

if TYPE_CHECKING:
    from meshd.receiving.agent import Agent
    from meshd.receiving.arrivals import Arrivals

# A flood: more lines than this within the window become one.
BURST_WINDOW = 2.0
BURST_LINES = 10


class Watching(NamedTuple):
    """What `watch` uses."""

    arrivals: Arrivals


class WatchParams(Params):
    name: Annotated[str, about("whose notify log", HOSTED)]
    timeout: Annotated[float | None, Meta(description="seconds until it ends (default: never)")] = None


async def watch(call: Call, p: WatchParams, use: Watching) -> Result:
    """The notify log from where the last watch stopped. The cursor moves when a line was taken."""
    agent = await call.host(check_name(p.name))
    try:
        cursor = LogCursor(paths.notify_log(agent.name), paths.watch_cursor(agent.name))
    except ConfigError as error:
        raise Unreadable(error.message, error.hint) from None
    until = None if p.timeout is None else deadline_in(check_seconds(p.timeout, "timeout"))
    try:
        async with asyncio.timeout_at(until):
            with agent.attached(), agent.notify.written.awaited() as written:
                await _watch(call, use, agent, cursor, written)
    except TimeoutError:
        return Result({})
    raise AssertionError("a watch ends by its time, or by an error")


async def _watch(call: Call, use: Watching, agent: Agent, cursor: LogCursor, written: asyncio.Event) -> None:
    told: set[str] = set()
    if await _in_thread(cursor.is_new):
        await use.arrivals.fresh(agent)
        await _in_thread(cursor.to_end)
        await agent.execute(list)  # behind a step whose line is passed over and whose message is not there yet
        if agent.core.inbox.unread:
            told = set(agent.core.inbox.unread.recent())
            await call.emit(Result({"line": _unread_line(agent)}))
    quiet_since = 0.0
    while True:
        written.clear()
        lines = await _in_thread(cursor.read)
        if told:  # their lines may come after them
            lines = [line for line in lines if line.rpartition("[")[2].removesuffix("]") not in told]
        # The first line of a burst goes out at once; what follows is gathered.
        if len(lines) > BURST_LINES:
            lines = [_burst_line(lines, agent.name)]
        for line in lines:
            await call.emit(Result({"line": line}))
        if lines:
            await _in_thread(cursor.save)
            quiet_since = clock.mono()
        agent.check_hosted()
        await written.wait()
        if clock.mono() - quiet_since < BURST_WINDOW:
            await _gather(written)


async def _gather(written: asyncio.Event) -> None:
    """Let a burst become one: wait until it pauses, or its window is over."""
    try:
        async with asyncio.timeout(BURST_WINDOW):
            while True:
                written.clear()
                async with asyncio.timeout(_PAUSE):
                    await written.wait()
    except TimeoutError:
        pass


_PAUSE = 0.2


def _unread_line(agent: Agent) -> str:
    unread = agent.core.inbox.unread
    senders = sorted(unread.senders())
    return f"📨 {len(unread)} unread from {_few(senders)}: meshctl inbox {agent.name}"


def _burst_line(lines: list[str], name: str) -> str:
    senders = sorted({line[2:].partition(":")[0] for line in lines if line[:1] in "📨📢⏰"})
    losses = sum(line.startswith("⚠") for line in lines)
    warned = f", {losses} warnings" if losses else ""
    return f"📨 {len(lines)} messages from {_few(senders)}{warned}: meshctl inbox {name}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


async def _in_thread(job: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, functools.partial(job))


def show_line(item: dict[str, Any]) -> Printed:
    return Printed(item["line"] + "\n")


def show_nothing(data: dict[str, Any]) -> Printed:
    return Printed()


COMMANDS = [
    Command(
        "watch",
        WatchParams,
        watch,
        show_nothing,
        "the notify log's lines as they come, from where the last watch stopped",
        "meshctl watch bob",
        show_item=show_line,
        needs=Watching,
    ),
]
