"""ping and request: the commands that wait for an answer."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from msgspec import Meta

from meshd.commands.base import AGENTS, HOSTED, Call, Command, Params, Printed, Result, about
from meshd.commands.checks import check_seconds, check_text
from meshd.core.message import Message, Reply
from meshd.core.names import check_name, check_nonce, new_id
from meshd.core.text import block
from meshd.core.wire import ASKED_TTL, PONG_TTL, Outgoing
from meshd.errors import Busy, OutcomeUnknown, StoreError, TimedOut
from meshd.store.scripts import pinging
from meshd.system import clock

if TYPE_CHECKING:  # the manual is made from this table where redis is not installed
    from meshd.core.names import Keys
    from meshd.hosting.configuration import Configuration
    from meshd.sending.requests import Requests
    from meshd.store.commands import Commands
    from meshd.store.waits import Waiters


class Asking(NamedTuple):
    """What these commands use."""

    keys: Keys
    commands: Commands
    waits: Waiters
    requests: Requests
    configuration: Configuration


class PingParams(Params):
    target: Annotated[str, about("the agent to reach", AGENTS)]
    sender: Annotated[str | None, about("who asks (default: AGENT_MESH_NAME, the configured name, or cli)", HOSTED)] = (
        None
    )
    timeout: Annotated[float, Meta(description="seconds to wait")] = 5.0


async def ping(call: Call, p: PingParams, use: Asking) -> Result:
    target, sender = check_name(p.target, "target"), call.sender(p.sender)
    timeout = check_seconds(p.timeout, "timeout")
    keys, nonce = use.keys, new_id()
    started = time.perf_counter()
    entry = ("from", sender, "msg_type", "ping", "nonce", nonce, "ts", f"{clock.wall():.6f}")
    with contextlib.suppress(OutcomeUnknown):  # it may have arrived: the answer will tell
        full = await use.commands.script(pinging.ping(keys, target, entry), timeout=timeout)
        if full is not None:
            raise Busy(
                f"not pinged: {target}'s mailbox is full: {full.entries} messages wait there",
                f"meshctl who shows whether {target} is there",
                waiting=full.entries,
                since=full.since,
            )
    left = timeout - (time.perf_counter() - started)
    pong = await use.waits.first(keys.pong(nonce), left, _fields)
    if pong is None:
        raise TimedOut(f"timeout waiting for pong from {target}", "meshctl who shows who is there", target=target)
    latency = (time.perf_counter() - started) * 1000
    if b"session" not in pong:  # of a 0.1 program, which lets it stand for ever
        with contextlib.suppress(StoreError):
            await use.commands.call("EXPIRE", keys.pong(nonce), PONG_TTL)
    return Result({"target": target, "latency_ms": round(latency, 3), "session": pong.get(b"session") == b"1"})


def _fields(raw: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(raw[::2], raw[1::2], strict=True))


def show_ping(data: dict[str, Any]) -> Printed:
    return Printed(f"pong from {data['target']} in {data['latency_ms']:.1f}ms\n")


class RequestParams(Params):
    target: Annotated[str, about("the agent to ask", AGENTS)]
    message: Annotated[str, Meta(description="the question; - reads it from standard input")]
    sender: Annotated[str | None, about("who asks (default: AGENT_MESH_NAME, the configured name, or cli)", HOSTED)] = (
        None
    )
    timeout: Annotated[float, Meta(description="seconds to wait")] = 180.0
    id: Annotated[str | None, Meta(description="the request's nonce; the same one again is not asked twice")] = None


class _Given:
    """A reply on its way to who asked."""

    awaited = True
    messages: Sequence[Message] = ()

    def __init__(self, requests: Requests, out: Outgoing, reply: Reply) -> None:
        self._given = (requests, out, reply)
        self._open = True

    async def confirm(self) -> None:
        requests, out, reply = self._given
        if self._open:
            self._open = False
            await requests.reached(out, reply)

    def release(self) -> None:
        requests, out, _ = self._given
        if self._open:
            self._open = False
            requests.give_up(out)


async def request(call: Call, p: RequestParams, use: Asking) -> Result:
    target, sender = check_name(p.target, "target"), call.sender(p.sender)
    text = check_text(p.message, use.configuration.current.max_message)
    timeout = check_seconds(p.timeout, "timeout")
    keys, nonce = use.keys, check_nonce(p.id) if p.id is not None else call.new_id()
    fields = (*("reply_to", keys.reply(nonce)), *("expect_reply", "1", "deadline", f"{clock.wall() + timeout:.3f}"))
    out = Outgoing(nonce, sender, target, text, fields=fields, asks=ASKED_TTL + math.ceil(timeout))
    reply = await use.requests.ask(out, timeout)
    if reply is None:
        raise TimedOut("timeout: no reply received", "", id=nonce)
    given = _Given(use.requests, out, reply)
    return Result({"reply": reply.text, "from": reply.sender, "id": nonce}, given)


def show_request(data: dict[str, Any]) -> Printed:
    return Printed(block(data["reply"]) + "\n")


COMMANDS = [
    Command(
        "ping",
        PingParams,
        ping,
        show_ping,
        "measure the way to an agent's daemon and back",
        "meshctl ping bob",
        timeout_on_stdout=True,
        needs=Asking,
    ),
    Command(
        "request",
        RequestParams,
        request,
        show_request,
        "ask and wait for the reply; prints its text alone",
        'meshctl request bob "which branch?" --from alice --timeout 60',
        needs=Asking,
    ),
]
