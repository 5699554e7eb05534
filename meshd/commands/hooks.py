"""hook: what a client's hooks call, so that a busy session is told of mail between its steps and an idle one woken.

The input is what Claude Code gives a hook on standard input; the output is what it takes from one. Nothing here
may ever stop a session: what is not understood is passed over in silence.
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from meshd.commands.base import Call, Command, Params, Printed, Result
from meshd.errors import UsageError

# `meshctl` turns this into the 2 with which a waiting hook wakes its session, and every other code into 0.
WAKES = 86


class HookParams(Params):
    input: Annotated[str, Meta(description="the hook's JSON; - reads it from standard input")]
    wait: Annotated[bool, Meta(description="wait until there is mail, then wake the session")] = False


class _Input(msgspec.Struct):
    """What we use of a hook's input."""

    session_id: str
    hook_event_name: str = ""
    stop_hook_active: bool = False
    agent_id: str | None = None  # a subagent's step: its words are not the session's


async def hook(call: Call, p: HookParams) -> Result:
    try:
        said = msgspec.json.decode(p.input, type=_Input)
    except msgspec.MsgspecError as error:
        raise UsageError(f"not a hook's input: {error}", "this command is for the hooks of a client") from None
    if said.agent_id:
        return Result({})
    sessions = call.mesh.sessions
    session = sessions.of_client(said.session_id, _pid(call.environment.get("CLAUDE_PID")))
    if p.wait:
        return await _wait(call, said.session_id)
    if session is None or (agent := call.mesh.agents.get(session.name)) is None:
        return Result({})
    waker = agent.waker
    match said.hook_event_name:
        case "UserPromptSubmit" | "PostToolUse" | "PostToolUseFailure" | "PostToolBatch" as event:
            waker.stepped()
            return _context(event, waker.tell())
        case "SessionStart":
            waker.rested()
            return _context("SessionStart", waker.tell())
        case "Stop":
            # Once a turn: a peer that writes without end must not keep a session from ending its turn.
            line = None if said.stop_hook_active else waker.tell()
            if line is None:
                waker.rested()
            return _context("Stop", line)  # the session goes on with it
        case "Notification" | "SessionEnd":
            waker.rested()
    return Result({})


def _pid(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _context(event: str, line: str | None) -> Result:
    if line is None:
        return Result({})
    return Result({"output": {"hookSpecificOutput": {"hookEventName": event, "additionalContext": line}}})


async def _wait(call: Call, client_session: str) -> Result:
    """Until the ladder rings this rung. A later hook of the same session takes the place of an earlier one."""
    rung: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def ring(line: str) -> None:
        if not rung.done():
            rung.set_result(line)

    with call.mesh.sessions.waiting_hook(client_session, ring):
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
    ),
]
