"""send, broadcast, reply, ack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta

from meshd.commands.base import AGENTS, HOSTED, Call, Command, Params, Printed, Result, about
from meshd.commands.checks import check_optional_id, check_seconds, check_text, check_wait_room
from meshd.core.names import EVERYONE, check_name
from meshd.core.origin import Origin
from meshd.core.wire import Outgoing, Receipt
from meshd.errors import MeshError, NotFound, OutcomeUnknown
from meshd.system import clock

if TYPE_CHECKING:  # the manual is made from this table where redis is not installed
    from meshd.core.names import Keys
    from meshd.hosting.configuration import Configuration
    from meshd.receiving.agent import Agent
    from meshd.sending.outbox import Outbox
    from meshd.sending.requests import Requests


class Messaging(NamedTuple):
    """What these commands use."""

    outbox: Outbox
    requests: Requests
    agents: dict[str, Agent]
    keys: Keys
    configuration: Configuration


WaitRoom = Annotated[float, Meta(description="seconds to wait for room if the mailbox is full")]


class SendParams(Params):
    target: Annotated[str, about("the agent to send to", AGENTS)]
    message: Annotated[str, Meta(description="the text; - reads it from standard input")]
    sender: Annotated[
        str | None, about("who sends (default: AGENT_MESH_NAME, the configured name, or cli)", HOSTED)
    ] = None
    private: Annotated[bool, Meta(description="only to the target, with no copy in the group")] = False
    expect_reply: Annotated[bool, Meta(description="re-ping until it is answered, then tell the watchdog")] = False
    within: Annotated[float, Meta(description="seconds until the answer is due")] = 120.0
    re: Annotated[str | None, Meta(description="id of the message that this one answers")] = None
    id: Annotated[str | None, Meta(description="the message's id; the same one again is not sent twice")] = None
    thread: Annotated[str | None, Meta(description="id of the conversation")] = None
    wait_room: WaitRoom = 0.0


async def send(call: Call, p: SendParams, use: Messaging) -> Result:
    target, sender = check_name(p.target, "target"), call.sender(p.sender)
    text = check_text(p.message, use.configuration.current.max_message)
    fields: list[str] = []
    for name in ("re", "thread"):
        if (value := check_optional_id(getattr(p, name), name)) is not None:
            fields += (name, value)
    wait_room = check_wait_room(p.wait_room)
    message_id = check_optional_id(p.id, "id") or call.new_id()
    out = Outgoing(message_id, sender, target, text, p.private, tuple(fields))
    if p.expect_reply:
        receipt = await _send_expecting(call, use, out, check_seconds(p.within, "within"), wait_room)
    else:
        receipt = await use.outbox.send(out, wait_room=wait_room)
    return Result(_receipt(use, receipt, target))


async def _send_expecting(call: Call, use: Messaging, out: Outgoing, within: float, wait_room: float) -> Receipt:
    """The entry is on the disk before the message leaves; it stays unless the message certainly did not."""
    now = clock.wall()
    fields = (*out.fields, "expect_reply", "1", "deadline", f"{now + within:.3f}")

    opened = False

    async def open_entry() -> None:
        nonlocal opened
        agent = await call.host(out.sender)
        # A repeated id may have its entry already, from a send that did leave: that one is not ours to close.
        opened = out.id not in agent.core.ledger.entries
        ends = await agent.ends()
        await agent.execute(lambda: agent.core.open_reply(out.id, out.target, out.text, now, within, ends))

    async def close_entry() -> None:
        agent = use.agents.get(out.sender)
        if agent is not None and opened:
            core = agent.core
            await agent.execute(lambda: core.close_replies([out.id]))

    try:
        return await use.outbox.send(
            out._replace(fields=fields), first=open_entry, wait_room=wait_room, given_up=close_entry
        )
    except OutcomeUnknown:
        raise
    except MeshError:
        await close_entry()
        raise


def _receipt(use: Messaging, receipt: Receipt, target: str) -> dict[str, Any]:
    return {
        "status": "sent",
        "id": receipt.id,
        "to": target,
        # One that we host ourselves takes its lease again in a moment, when it has none right after our start.
        "held": receipt.held or target in use.agents,
        "again": receipt.again,
        "rate": receipt.rate,
        "over_limit": receipt.observed,
    }


def show_sent(data: dict[str, Any]) -> Printed:
    notes = []
    if not data["held"] and data["to"] != EVERYONE:
        notes.append(f"warning: nobody holds the name {data['to']} now; the message waits in the store\n")
    if data["over_limit"]:
        notes.append(f"warning: {data['rate']} messages to {data['to']} within 10 s, over the limit\n")
    return Printed(f"sent {data['id']}\n", "".join(notes))


class BroadcastParams(Params):
    message: Annotated[str, Meta(description="the text; - reads it from standard input")]
    sender: Annotated[
        str | None, about("who sends (default: AGENT_MESH_NAME, the configured name, or cli)", HOSTED)
    ] = None
    id: Annotated[str | None, Meta(description="the message's id; the same one again is not sent twice")] = None


async def broadcast(call: Call, p: BroadcastParams, use: Messaging) -> Result:
    text = check_text(p.message, use.configuration.current.max_message)
    message_id = check_optional_id(p.id, "id") or call.new_id()
    receipt = await use.outbox.send(Outgoing(message_id, call.sender(p.sender), EVERYONE, text))
    return Result(_receipt(use, receipt, EVERYONE))


class ReplyParams(Params):
    where: Annotated[str, Meta(description="mesh:reply:<nonce>, or the id of a message that was received")]
    text: Annotated[str, Meta(description="the answer; - reads it from standard input")]
    sender: Annotated[str | None, about("who answers (default: who received the message)", HOSTED)] = None
    id: Annotated[str | None, Meta(description="the answer's id; the same one again is not sent twice")] = None
    wait_room: WaitRoom = 0.0


async def reply(call: Call, p: ReplyParams, use: Messaging) -> Result:
    text = check_text(p.text, use.configuration.current.max_message, "text")
    wait_room = check_wait_room(p.wait_room)
    answer_id = check_optional_id(p.id, "id") or call.new_id()
    nonce = use.keys.reply_nonce(p.where)
    if nonce is not None:
        sender, peer, request, re = call.sender(p.sender), None, True, nonce
    else:
        sender, (peer, request, about) = await _received(call, p, use)
        re = p.where if request else about or p.where  # a re-ping stands for what it is about
    if request:
        fields = ("from", sender, "reply", text, "ts", f"{clock.wall():.6f}")
        peer = await use.requests.reply(re, answer_id, fields)
    if peer is None:
        return Result({"status": "replied", "id": re})
    out = Outgoing(answer_id, sender, peer, text, private=True, fields=("re", re))
    return Result({**_receipt(use, await use.outbox.send(out, wait_room=wait_room), peer), "late": request})


async def _received(call: Call, p: ReplyParams, use: Messaging) -> tuple[str, Origin]:
    """Who received the message that is answered, and where it came from."""
    if p.sender is not None or call.names_itself:
        name = call.sender(p.sender)
        candidates = [use.agents[name]] if name in use.agents else []
    else:
        candidates = list(use.agents.values())
    for agent in candidates:
        known = agent.core.inbox.origin(p.where)
        if known is not None:
            return agent.name, known
    for agent in candidates:
        known = await agent.backlog.origin(p.where)
        if known is not None:
            return agent.name, known
    raise NotFound(
        "no message of that id was received here",
        "WHERE is mesh:reply:<nonce>, or an id that meshctl inbox NAME --json shows",
    )


def show_reply(data: dict[str, Any]) -> Printed:
    if data["status"] == "replied":
        return Printed(f"replied {data['id']}\n")
    sent = show_sent(data)
    late = f"note: {data['to']} waits for it no longer: it was sent as a message\n" if data["late"] else ""
    return sent._replace(err=late + sent.err)


class AckParams(Params):
    peer: Annotated[str, about("the agent whose answers are settled", AGENTS)]
    text: Annotated[str, Meta(description="what to tell it; - reads it from standard input")]
    sender: Annotated[
        str | None, about("whose entries (default: AGENT_MESH_NAME, the configured name, or cli)", HOSTED)
    ] = None
    id: Annotated[str | None, Meta(description="the message's id; the same one again is not sent twice")] = None
    wait_room: WaitRoom = 0.0


async def ack(call: Call, p: AckParams, use: Messaging) -> Result:
    peer, sender = check_name(p.peer, "peer"), call.sender(p.sender)
    text = check_text(f"ACK: {check_text(p.text, 1 << 30, 'text')}", use.configuration.current.max_message, "text")
    message_id = check_optional_id(p.id, "id") or call.new_id()
    receipt = await use.outbox.send(
        Outgoing(message_id, sender, peer, text, private=True), wait_room=check_wait_room(p.wait_room)
    )
    agent = use.agents.get(sender)
    owed = agent.core.ledger.owed_by(peer) if agent else []
    if agent is not None and owed:
        await agent.execute(lambda: agent.core.close_replies(owed))
    return Result({**_receipt(use, receipt, peer), "settled": owed})


def show_ack(data: dict[str, Any]) -> Printed:
    sent = show_sent(data)
    n = len(data["settled"])
    return sent._replace(err=f"{sent.err}settled {n} pending {'entry' if n == 1 else 'entries'}\n")


COMMANDS = [
    Command(
        "send",
        SendParams,
        send,
        show_sent,
        "send a message to an agent",
        'meshctl send bob "the build is green" --from alice',
        {"private": "p", "expect_reply": "e"},
        needs=Messaging,
    ),
    Command(
        "broadcast",
        BroadcastParams,
        broadcast,
        show_sent,
        "send to every hosted agent on every daemon",
        'meshctl broadcast "deploying in five minutes" --from alice',
        needs=Messaging,
    ),
    Command(
        "reply",
        ReplyParams,
        reply,
        show_reply,
        "answer a request or a message",
        'meshctl reply 3f2a… "yes, on main" --from bob',
        needs=Messaging,
    ),
    Command(
        "ack",
        AckParams,
        ack,
        show_ack,
        "settle what a peer owed, and tell it",
        'meshctl ack bob "got it" --from alice',
        needs=Messaging,
    ),
]
