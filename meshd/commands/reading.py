"""inbox, listen, monitor, watch: the commands that hand mail over."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta

from meshd.commands.base import HOSTED, Call, Command, Params, Printed, Result, about
from meshd.commands.checks import check_seconds, deadline_in
from meshd.core.message import Message
from meshd.core.text import block
from meshd.errors import Full, StoreError, TimedOut, Unavailable, Unreadable, UsageError
from meshd.receiving.handover import Handover

if TYPE_CHECKING:
    from meshd.core.names import Keys
    from meshd.receiving.agent import Agent
    from meshd.receiving.arrivals import Arrivals
    from meshd.receiving.broadcasts import GroupReader

MAX_LIMIT = 10_000
_GROUP_QUEUE = 1000


class Reading(NamedTuple):
    """What these commands use."""

    keys: Keys
    group: GroupReader
    arrivals: Arrivals


class InboxParams(Params):
    name: Annotated[str, about("whose inbox", HOSTED)]
    peek: Annotated[bool, Meta(description="leave them unread")] = False
    limit: Annotated[int, Meta(description="at most so many messages")] = 1000


async def inbox(call: Call, p: InboxParams, use: Reading) -> Result:
    if not 1 <= p.limit <= MAX_LIMIT:
        raise UsageError(f"limit must be from 1 to {MAX_LIMIT}", "as in --limit 100")
    try:
        agent = await call.host(p.name)
    except (Full, Unreadable) as error:
        raise _unavailable(p.name, error.message) from None
    fresh = await use.arrivals.fresh(agent)
    if not p.peek:
        if why := agent.held_up:
            raise _unavailable(agent.name, why)
        await agent.ensure_held()
    box = agent.core.inbox
    try:
        messages = await (_peek if p.peek else _take)(agent, p.limit, call.max_bytes)
    except Full as error:
        raise _unavailable(agent.name, error.message) from None
    lost = box.losses.untold if p.peek else box.losses.take()
    data = {
        "name": agent.name,
        "messages": [message.public(use.keys) for message in messages],
        "lost": lost,
        "unread": len(box.unread) - (0 if p.peek else len(messages)),
        # What somebody else holds, or was handed out a moment ago, is no more to be had by another call.
        "more": len(box.unread) - len(messages) if p.peek else box.free,
    }
    if agent.health.quarantined_untold:
        data["quarantined"] = agent.health.quarantined_untold
        if not p.peek:
            agent.health.quarantined_untold = 0
    if (trouble := agent.health.trouble) is not None or not fresh:
        data["trouble"] = trouble or "there may be more: what the store has now is not known yet"
    return Result(data, None if p.peek or not (messages or lost) else Handover(agent, messages, lost))


async def _peek(agent: Agent, limit: int, max_bytes: int) -> list[Message]:
    return await agent.backlog.peek(limit, max_bytes)


async def _take(agent: Agent, limit: int, max_bytes: int) -> list[Message]:
    while await agent.backlog.bring(limit, max_bytes):
        await agent.ensure_held()
    return agent.core.inbox.take(limit, max_bytes)


def _unavailable(name: str, why: str) -> Unavailable:
    return Unavailable(f"the mail of {name} cannot be had now: {why}", "meshctl doctor")


def show_inbox(data: dict[str, Any]) -> Printed:
    bad = data.get("quarantined", 0)
    trouble = f"⚠ {bad} QUARANTINED: what was sent could not be taken in\n" if bad else ""
    trouble += f"warning: {data['trouble']}\n  next: meshctl doctor\n" if "trouble" in data else ""
    if not data["messages"] and not data["lost"]:
        return Printed(err=f"(no unread messages)\n{trouble}")
    lost = f"⚠ LOST {data['lost']} messages to {data['name']}\n" if data["lost"] else ""
    shown = [show_message(message, data["name"]) for message in data["messages"]]
    more = f"{data['more']} more: meshctl inbox {data['name']}\n" if data["more"] else ""
    return Printed(lost + "".join(one.out for one in shown), "".join(one.err for one in shown) + more + trouble)


def show_message(message: dict[str, Any], name: str) -> Printed:
    """`[DIRECT from <sender>] <text>`; further lines of the text are indented, so that none can pass for a message."""
    label = "GROUP" if message["kind"] in ("broadcast", "group") else "DIRECT"
    out = f"[{label} from {message['from']}] {block(message['text'])}".rstrip("\n").replace("\n", "\n    ") + "\n"
    if label == "GROUP" or not message.get("expect_reply"):
        return Printed(out)
    return Printed(out, f"  {message['from']} waits for a reply: meshctl reply {message['id']} TEXT --from {name}\n")


class ListenParams(Params):
    name: Annotated[str, about("whose mail", HOSTED)]
    timeout: Annotated[float, Meta(description="seconds to wait")] = 60.0
    stealth: Annotated[bool, Meta(description="without showing up as a session, or at all if not hosted yet")] = False
    follow: Annotated[bool, Meta(description="go on after the first message")] = False
    direct: Annotated[bool, Meta(description="direct messages only; all others stay unread")] = False


async def listen(call: Call, p: ListenParams, use: Reading) -> Result:
    timeout = check_seconds(p.timeout, "timeout")
    agent = await call.host(p.name, stealth=p.stealth)
    try:
        async with asyncio.timeout_at(deadline_in(timeout)):
            return await _hear(call, use, agent, hidden=p.stealth, follow=p.follow, direct=p.direct)
    except TimeoutError:
        raise TimedOut(f"timeout: no message for {agent.name} within {timeout:g} s", "") from None


async def _hear(call: Call, use: Reading, agent: Agent, *, hidden: bool, follow: bool, direct: bool = False) -> Result:
    """Give messages as they come; with no `follow`, the first direct one is the result; with `direct`, only those."""
    overheard: deque[Message] = deque(maxlen=_GROUP_QUEUE)
    with agent.attached(hidden=hidden), agent.changed.awaited() as changed:

        def hear(message: Message) -> None:
            mine = message.kind == "broadcast" or agent.name in (message.to, message.sender)
            if not mine and not direct:
                overheard.append(message)
                changed.set()

        with use.group.overheard(hear):
            while True:
                changed.clear()
                while overheard:
                    await call.emit(_item(use, agent, overheard.popleft(), "group"))
                if agent.core.inbox.has_free(direct=direct) and await _is_ready(agent, call.max_bytes, direct=direct):
                    for message in agent.core.inbox.take(1, call.max_bytes, direct=direct):
                        changed.set()  # there may be more
                        handover = Handover(agent, [message])
                        if message.kind != "broadcast" and not follow:
                            return Result({"message": message.public(use.keys), "name": agent.name}, handover)
                        try:
                            await call.emit(_item(use, agent, message, message.kind)._replace(handover=handover))
                        except BaseException:
                            handover.release()
                            raise
                agent.check_hosted()
                await changed.wait()


async def _is_ready(agent: Agent, max_bytes: int, *, direct: bool) -> bool:
    """Whether its next message may be handed out now. If the store cannot tell, whoever waits goes on waiting."""
    try:
        await agent.ensure_held()
        while await agent.backlog.bring(1, max_bytes, direct=direct):
            await agent.ensure_held()
    except StoreError:
        return False
    except Full as error:
        raise _unavailable(agent.name, error.message) from None
    return True


def _item(use: Reading, agent: Agent, message: Message, kind: str) -> Result:
    return Result({**message.public(use.keys), "kind": kind, "name": agent.name})


def show_listen(data: dict[str, Any]) -> Printed:
    if "message" in data:
        return show_message(data["message"], data["name"])
    return Printed(f"monitor already running for {data['name']}\n")


def show_heard(item: dict[str, Any]) -> Printed:
    return show_message(item, item["name"])


class MonitorParams(Params):
    name: Annotated[str, about("whose mail", HOSTED)]
    stealth: Annotated[bool, Meta(description="without showing up as a session, or at all if not hosted yet")] = False


async def monitor(call: Call, p: MonitorParams, use: Reading) -> Result:
    agent = await call.host(p.name, stealth=p.stealth)
    if agent.monitored:
        return Result({"name": agent.name, "already": True})
    agent.monitored = True
    try:
        return await _hear(call, use, agent, hidden=p.stealth, follow=True)
    finally:
        agent.monitored = False


COMMANDS = [
    Command(
        "inbox",
        InboxParams,
        inbox,
        show_inbox,
        "unread messages, oldest first; marks them read",
        "meshctl inbox bob",
        needs=Reading,
    ),
    Command(
        "listen",
        ListenParams,
        listen,
        show_listen,
        "wait for the next direct message; unread ones come first",
        "meshctl listen bob --timeout 60",
        show_item=show_heard,
        needs=Reading,
    ),
    Command(
        "monitor",
        MonitorParams,
        monitor,
        show_listen,
        "stay and print messages as they come",
        "meshctl monitor bob",
        show_item=show_heard,
        needs=Reading,
    ),
]
