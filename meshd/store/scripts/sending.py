"""The script that makes a send."""

from __future__ import annotations

from typing import NamedTuple

from meshd.core import wire
from meshd.core.message import PREVIEW, entry_time
from meshd.core.names import EVERYONE, Keys
from meshd.core.wire import Outgoing
from meshd.store import replies
from meshd.store.scripts.script import Invocation, Script

CONSTANTS = {
    "GATE_WINDOW": wire.GATE_WINDOW,
    "MAXLEN": wire.MAXLEN,
    "RECORD": wire.READ_RECORD,
    "DEDUPE_TTL": wire.DEDUPE_TTL,
    "DEDUPE_MOST": wire.DEDUPE_MOST,
    "DEDUPE_PAGE": wire.DEDUPE_PAGE,
    "COUNT_TTL": wire.COUNT_TTL,
    "STREAM_TTL": wire.STREAM_TTL,
}


class Waiting(NamedTuple):
    """What waits in a mailbox, and since when the oldest entry does, in wall seconds of the store."""

    entries: int
    since: float


class SendResult(NamedTuple):
    """What the store said to a send.

    `verdict`: `sent`, `again` (it is there under this id already), `denied` by the gate, `busy` (nothing happened,
    because of what is `waiting`), or `other` (something else was sent under this id). `entry` is its entry's id, `n`
    its count for this sender and target (of one that is there already 0 if an older version sent it), `held` whether
    somebody holds the target's name, `rate` the sends in the window, `left` the seconds until that ends.
    """

    verdict: str
    entry: str
    n: int
    held: bool
    rate: int
    left: int
    waiting: Waiting | None = None


class Gate(NamedTuple):
    """How many sends of one pair the window takes, 0 for any number; `enforce`: whether more are denied."""

    limit: int
    enforce: bool


class _Keys(NamedTuple):
    stream: str  # where the message goes: private, or the group for a broadcast
    copies: str  # the group, for a message that is not private; of a broadcast, the stream of broadcasts alone
    dedupe: str
    remembered: str
    rate: str
    audit: str
    counter: str
    registry: str  # of the target, as is the lease
    lease: str
    read: str
    asked: str  # how the request stands; only a request has one


class _Args(NamedTuple):
    id: str
    limit: int
    enforce: int
    floor: int  # what the sender knows to be counted
    ahead: int  # sends of the pair that the store has been given before, and that the sender has heard nothing of
    copy: int
    sender: str
    target: str
    text: str
    ts: str
    sid: str
    preview: str  # the text's beginning, for the audit
    digest: str  # of what is sent
    asks: int  # seconds
    again: int


def _read(reply: object) -> SendResult:
    verdict, entry, n, held, rate, left = replies.row(reply, str, str, int, int, int, int)
    if verdict == "busy":
        return SendResult(verdict, "", 0, bool(held), 0, 0, Waiting(n, entry_time(entry)))
    if verdict not in ("sent", "again", "denied", "other"):
        raise replies.garbled(reply, "what became of a send")
    return SendResult(verdict, entry, n, bool(held), rate, left)


SEND = Script(
    "send",
    _Keys,
    _Args,
    _read,
    wrote=lambda sent: sent.verdict == "sent",
    constants=CONSTANTS,
    parts=("stream", "room"),
)


def send(
    keys: Keys,
    out: Outgoing,
    *,
    sid: str,
    floor: int,
    gate: Gate,
    digest: str,
    ts: float,
    again: bool = False,
    ahead: int = 0,
) -> Invocation[SendResult]:
    """A send by the daemon's incarnation `sid`, whose last count for this pair was `floor`, at `ts` (wall seconds).

    `ahead`: so many of the pair are on their way before it, on the same connection. `digest` tells whether a
    repetition says the same. `again`: the store had it, and has lost it.
    """
    broadcast = out.target == EVERYONE
    return SEND(
        _Keys(
            stream=keys.group if broadcast else keys.inbox(out.target),
            copies=keys.broadcasts if broadcast else keys.group,
            dedupe=keys.dedupe(out.id),
            remembered=keys.remembered(sid),
            rate=keys.rate(out.sender, out.target),
            audit=keys.audit,
            counter=keys.count(sid, out.sender, out.target),
            registry=keys.registry(out.target),
            lease=keys.lease(out.target),
            read=keys.read(out.target),
            asked=keys.asked(out.id) if out.asks else "",
        ),
        _Args(
            id=out.id,
            limit=gate.limit if out.gated else 0,
            enforce=int(gate.enforce),
            floor=floor,
            ahead=ahead,
            copy=0 if out.private and not broadcast else 1,
            sender=out.sender,
            target=out.target,
            text=out.text,
            ts=f"{ts:.6f}",
            sid=sid,
            preview=out.text[:PREVIEW],  # cut here: the script would cut a character in half
            digest=digest,
            asks=out.asks,
            again=int(again),
        )
        + out.fields,
    )
