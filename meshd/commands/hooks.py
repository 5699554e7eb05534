"""hook: what a client's hooks call, so that a busy session is told of mail between its steps and an idle one woken.

The input is what Claude Code gives a hook on standard input; the output is what it takes from one. Nothing here
may ever stop a session: what is not understood is passed over in silence.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from meshd.commands.base import Call, Command, Params, Printed, Result
from meshd.errors import UsageError

if TYPE_CHECKING:
    from meshd.hosting.sessions import Sessions
    from meshd.receiving.agent import Agent

# `meshctl` turns this into the 2 with which a waiting hook wakes its session, and every other code into 0.
WAKES = 86


class Waking(NamedTuple):
    """What `hook` uses."""

    sessions: Sessions
    agents: dict[str, Agent]


class HookParams(Params):
    input: Annotated[str, Meta(description="the hook's JSON; - reads it from standard input")]
    wait: Annotated[bool, Meta(description="wait until there is mail, then wake the session")] = False


class _Input(msgspec.Struct):
    """What we use of a hook's input. All but the first are what a client of tomorrow may make of them."""

    session_id: str
    hook_event_name: Any = ""
    stop_hook_active: Any = False
    agent_id: Any = None  # a subagent's step: its words are not the session's
    prompt: Any = ""
    source: Any = ""
    notification_type: Any = ""


async def hook(call: Call, p: HookParams, use: Waking) -> Result:
    try:
        # Not msgspec's decoder: it refuses the half of a surrogate pair that a cut tool output ends with.
        said = msgspec.convert(json.loads(p.input), _Input)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise UsageError(f"not a hook's input: {error}", "this command is for the hooks of a client") from None
    if said.agent_id:
        return Result({})
    sessions = use.sessions
    pid = _pid(call.environment.get("CLAUDE_PID"))
    session = sessions.of_client(said.session_id, pid)
    if p.wait:
        return await _wait(use, said.session_id, pid)
    if session is None or (agent := use.agents.get(session.name)) is None:
        return Result({})
    waker = agent.waker
    match said.hook_event_name:
        case "UserPromptSubmit" | "PostToolUse" | "PostToolUseFailure" | "PostToolBatch" as event:
            waker.stepped()
            waker.heard(str(said.prompt))
            return _context(event, waker.tell())
        case "SessionStart":
            if said.source != "compact":  # which may be in the middle of a turn
                waker.anew()
            return _context("SessionStart", waker.tell())
        case "Stop":
            # Once a turn: a peer that writes without end must not keep a session from ending its turn.
            line = None if said.stop_hook_active else waker.tell()
            if line is None:
                waker.rested()
            else:
                waker.stepped()  # the session goes on with it
            return _context("Stop", line)
        case "Notification" if said.notification_type in ("", "idle_prompt"):
            waker.rested()
    return Result({})


def _pid(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


def _context(event: str, line: str | None) -> Result:
    if line is None:
        return Result({})
    return Result({"output": {"hookSpecificOutput": {"hookEventName": event, "additionalContext": line}}})


async def _wait(use: Waking, client_session: str, client_pid: int | None) -> Result:
    """Until the ladder rings this rung. A later hook of the same session takes the place of an earlier one."""
    rung: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def ring(line: str) -> None:
        if not rung.done():
            rung.set_result(line)

    with use.sessions.waiting_hook(client_session, client_pid, ring):
        line = await rung
    return Result({"wake": line} if line else {})


def show_hook(data: dict[str, Any]) -> Printed:
    if "wake" in data:
        return Printed(err=f"{data['wake']}\n", code=WAKES)
    return Printed(f"{json.dumps(data['output'])}\n" if "output" in data else "")


COMMANDS = [
    Command(
        "hook",
        HookParams,
        hook,
        show_hook,
        "tell a client's session of mail, between its steps or when it is idle",
        "meshctl hook - < input.json",
        starts_daemon=False,
        needs=Waking,
    ),
]
