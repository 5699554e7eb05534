"""The scripts of answers: pongs, and replies to requests with what becomes of them."""

from __future__ import annotations

from typing import NamedTuple

from meshd.core.names import Keys
from meshd.core.wire import ANSWERS, ASKED_TTL, PONG_TTL, REPLY_TTL, TAKEN_TTL, Outgoing
from meshd.store import replies
from meshd.store.scripts.peeking import LARGE
from meshd.store.scripts.script import Invocation, Script

_BOUND = {"MAXLEN": ANSWERS}


class Given(NamedTuple):
    """What became of an answer.

    `how`: `answered`; `waits`, if the asker's daemon will tell that it has it; `taken`, if it has told that before; or
    `late`. `asker` is who asked, where that is known, as it stands in the store.
    """

    how: str
    asker: str | None


class Kept(NamedTuple):
    """An entry of a reply stream: its id, and its fields and values, flat; none of one that is too large."""

    id: str
    raw: list[bytes]


class _AnswerKeys(NamedTuple):
    stream: str
    asked: str  # how the request stands; only for a reply


class _AnswerArgs(NamedTuple):
    ttl: int  # seconds


def _read_answer(reply: object) -> Given:
    if isinstance(reply, list) and len(reply) == 2:
        how, asker = replies.row(reply, str, str)
    else:
        (how,), asker = replies.row(reply, str), None
    if (how, asker is None) not in (("answered", True), ("taken", True), ("waits", False), ("late", False)):
        raise replies.garbled(reply, "what became of an answer")
    return Given(how, asker)


ANSWER = Script(
    "answer", _AnswerKeys, _AnswerArgs, _read_answer, lambda given: given.how in ("answered", "waits"), _BOUND
)


def pong(keys: Keys, nonce: str, fields: tuple[str, ...], ttl: int = PONG_TTL) -> Invocation[Given]:
    """Answer a ping, on a stream that lasts for `ttl` seconds."""
    return ANSWER(_AnswerKeys(stream=keys.pong(nonce), asked=""), _AnswerArgs(ttl) + fields)


def reply(keys: Keys, nonce: str, reply_id: str, fields: tuple[str, ...]) -> Invocation[Given]:
    """Answer a request. A 0.1 program gets no id: the script leaves out the last field."""
    found = _AnswerKeys(stream=keys.reply(nonce), asked=keys.asked(nonce))
    return ANSWER(found, _AnswerArgs(REPLY_TTL) + fields + ("id", reply_id))


class _TakeKeys(NamedTuple):
    stream: str
    asked: str
    news: str  # the stream that tells whoever replied


class _TakeArgs(NamedTuple):
    asker: str
    ttl: int  # seconds that it is remembered
    reply: str  # its id, empty for a 0.1 program's
    news_ttl: int
    reply_ttl: int  # for a reply that whoever gave it has let live for ever, as 0.1 programs do


def _read_take(answer: object) -> None:
    if answer != [b"taken"]:
        raise replies.garbled(answer, "that a reply was taken")


TAKE = Script("take", _TakeKeys, _TakeArgs, _read_take, constants=_BOUND)


def take(keys: Keys, out: Outgoing, reply_id: str) -> Invocation[None]:
    """The reply to request `out` has reached who asked."""
    return TAKE(
        _TakeKeys(stream=keys.reply(out.id), asked=keys.asked(out.id), news=keys.taken(out.id)),
        _TakeArgs(asker=out.sender, ttl=out.asks, reply=reply_id, news_ttl=TAKEN_TTL, reply_ttl=REPLY_TTL),
    )


class _ReplyKeys(NamedTuple):
    stream: str
    asked: str


class _WithdrawArgs(NamedTuple):
    reply: str  # its id


def _read_withdraw(answer: object) -> bool:
    (how,) = replies.row(answer, str)
    if how not in ("withdrawn", "taken"):
        raise replies.garbled(answer, "whether a reply was withdrawn")
    return bool(how == "withdrawn")


WITHDRAW = Script("withdraw", _ReplyKeys, _WithdrawArgs, _read_withdraw, wrote=bool)


def withdraw(keys: Keys, nonce: str, reply_id: str) -> Invocation[bool]:
    """Take a reply back: False if it was taken after all."""
    return WITHDRAW(_ReplyKeys(stream=keys.reply(nonce), asked=keys.asked(nonce)), _WithdrawArgs(reply_id))


class _HangUpArgs(NamedTuple):
    asker: str
    ttl: int  # seconds that it is remembered
    first: str  # id of the first entry to look at
    reply_ttl: int  # seconds, as for `take`


def _read_hang_up(answer: object) -> Kept | None:
    if answer == [b"late"]:
        return None
    how, at, raw = replies.row(answer, str, str, list)
    if how != "kept" or not all(isinstance(part, bytes) for part in raw):
        raise replies.garbled(answer, "whether there is a reply")
    return Kept(at, raw)


HANG_UP = Script("hang_up", _ReplyKeys, _HangUpArgs, _read_hang_up, lambda kept: kept is None, {"LARGE": LARGE})


def hang_up(keys: Keys, out: Outgoing, first: str) -> Invocation[Kept | None]:
    """Stop waiting for the reply to `out`, unless there is an entry from `first` on, which is given then."""
    return HANG_UP(
        _ReplyKeys(stream=keys.reply(out.id), asked=keys.asked(out.id)),
        _HangUpArgs(asker=out.sender, ttl=ASKED_TTL, first=first, reply_ttl=REPLY_TTL),
    )
