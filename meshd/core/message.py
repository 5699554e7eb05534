"""A message, and what an entry of a stream turns out to be.

An entry is written by anybody who reaches the store, so nothing in it is believed before it was checked here.
The wire is agent-mesh 0.1's: unknown fields are ignored, ours are optional.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from meshd.core.names import EVERYONE, Keys, is_id, is_name, is_nonce
from meshd.core.text import LINE_LIMIT, cut, one_line

PREVIEW = 200
_COUNT = re.compile(r"[0-9]{1,15}")
_ENTRY_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_SID = re.compile(r"[0-9a-f]{1,32}")


class Message(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One message as received. `at` is its entry id, `index` its ordinal among all entries ever in its stream."""

    id: str
    sender: str = msgspec.field(name="from")
    text: str
    ts: float
    at: str
    index: int = 0
    kind: str = "direct"  # direct, broadcast, reping
    to: str | None = None  # group entries only
    re: str | None = None
    thread: str | None = None
    about: str | None = None
    request: bool = False  # somebody waits on the reply key that `id` names
    expect_reply: bool = False
    deadline: float | None = None
    sid: str | None = None
    n: int = 0

    @property
    def size(self) -> int:
        """Bytes of its text."""
        return len(self.text) if self.text.isascii() else len(self.text.encode())

    def public(self, keys: Keys) -> dict[str, object]:
        """For programs: what `--json` and the control socket show."""
        shown: dict[str, object] = {
            "id": self.id,
            "from": self.sender,
            "text": self.text,
            "ts": self.ts,
            "kind": self.kind,
        }
        for key in ("to", "re", "thread", "about", "deadline"):
            if (value := getattr(self, key)) is not None:
                shown[key] = value
        if self.expect_reply or self.request:
            shown["expect_reply"] = True
        if self.request:
            shown["reply_to"] = keys.reply(self.id)
        return shown

    def notify_line(self) -> str:
        """One line for the notify log, at most 500 characters with its id always whole."""
        mark = {"broadcast": "📢", "reping": "⏰"}.get(self.kind, "📨")
        head = f"{mark} {self.sender}: "
        tail = f" [{self.id}]"
        return head + cut(one_line(self.text), LINE_LIMIT - len(head) - len(tail)) + tail


class Ping(msgspec.Struct, frozen=True):
    """Somebody asks whether this name's daemon is there. `moved`: a daemon took the name's lease over."""

    sender: str
    nonce: str
    ts: float
    at: str
    moved: bool = False


class Malformed(msgspec.Struct, frozen=True):
    """An entry that is no message. `line` is safe to show. Its sender's count is kept as far as it can be read."""

    at: str
    reason: str
    fields: tuple[bytes, ...]
    sender: str = ""
    sid: str | None = None
    n: int = 0

    @property
    def line(self) -> str:
        return f"⚠ QUARANTINED {self.at}: {self.reason}"


Decoded = Message | Ping | Malformed


class Reply(NamedTuple):
    """The reply to a request. `id` tells it from others to the same; a 0.1 program gives none."""

    sender: str
    text: str
    id: str


def decode(entry_id: bytes, flat: Sequence[bytes] | None, keys: Keys, limit: int) -> Decoded:
    """Turn one stream entry (field, value, field, value …) into what it is. Never raises."""
    at = entry_id.decode("ascii", "replace")
    raw = tuple(flat or ())
    if len(raw) % 2:
        return Malformed(at, "a field without a value", raw)
    fields = dict(zip(raw[::2], raw[1::2], strict=True))
    try:
        return _decode(at, fields, keys, limit)
    except _Bad as bad:
        reason = str(bad)
    except UnicodeDecodeError:
        reason = "not valid UTF-8"
    sender = fields.get(b"from", b"").decode("ascii", "replace")
    sid, n = _count(fields) if is_name(sender) else (None, 0)
    return Malformed(at, reason, raw, sender if sid else "", sid, n)


def encode(message: Message, keys: Keys) -> list[str]:
    """The fields of a message as they stood in its entry, flat: what `decode` makes the same message of."""
    fields = ["from", message.sender, "msg", message.text, "ts", repr(message.ts), "id", message.id]
    for name in ("to", "re", "thread", "about", "sid"):
        if (value := getattr(message, name)) is not None:
            fields += (name, value)
    if message.sid is not None:
        fields += ("n", str(message.n))
    if message.expect_reply:
        fields += ("expect_reply", "1")
    if message.deadline is not None:
        fields += ("deadline", repr(message.deadline))
    if message.request:
        fields += ("reply_to", keys.reply(message.id))
    return fields


def decode_reply(flat: Sequence[bytes], limit: int) -> Reply | str:
    """Turn an entry of a reply stream into the reply that it is, or the reason why it is none."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    try:
        name = _sender(fields)
        return Reply(name, _text(fields, b"reply", name, limit), _id(fields.get(b"id")) or "")
    except _Bad as bad:
        return str(bad)


class _Bad(ValueError):
    """Why an entry is no message."""


def _sender(fields: dict[bytes, bytes]) -> str:
    sender = fields.get(b"from")
    if sender is None:
        raise _Bad("no sender")
    name = sender.decode("ascii", "replace")
    if not is_name(name):
        raise _Bad("its sender is not a name")
    return name


def _text(fields: dict[bytes, bytes], field: bytes, name: str, limit: int) -> str:
    body = fields.get(field)
    if body is None:
        raise _Bad(f"no text, from {name}")
    if len(body) > limit:
        raise _Bad(f"{len(body)} bytes, over the limit of {limit}, from {name}")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise _Bad(f"its text is not valid UTF-8, from {name}") from None


def _decode(at: str, fields: dict[bytes, bytes], keys: Keys, limit: int) -> Decoded:
    name = _sender(fields)
    ts = _number(fields.get(b"ts"))
    if fields.get(b"msg_type") == b"ping":
        nonce = fields.get(b"nonce", b"").decode("ascii", "replace")
        if not is_nonce(nonce):
            raise _Bad(f"a ping from {name} without a nonce")
        # Its sender's clock may be wrong, or not be told: the store's says as well how old it is.
        return Ping(name, nonce, max(ts or 0.0, entry_time(at)), at, moved=b"moved" in fields)
    text = _text(fields, b"msg", name, limit)
    message = Message(id=_id(fields.get(b"id")) or at, sender=name, text=text, ts=ts or entry_time(at), at=at)
    _optional(message, fields, keys)
    return message


def _optional(message: Message, fields: dict[bytes, bytes], keys: Keys) -> None:
    """Fields that may be missing; one with a senseless value counts as missing, and the message is delivered."""
    to = fields.get(b"to", b"").decode("ascii", "replace")
    if to == EVERYONE or is_name(to):
        message.to = to
    message.re = _id(fields.get(b"re"))
    message.thread = _id(fields.get(b"thread"))
    message.about = _id(fields.get(b"about"))
    if message.to == EVERYONE:
        message.kind = "broadcast"
        if message.id == message.at:
            message.id = group_id(message.at)
    elif message.about:
        message.kind = "reping"
    message.expect_reply = fields.get(b"expect_reply") == b"1"
    message.deadline = _number(fields.get(b"deadline"))
    reply_to = fields.get(b"reply_to")
    if reply_to is not None:
        # Honoured only if it is the reply key of this very message: a stranger must not aim our writes.
        message.request = is_nonce(message.id) and keys.reply_nonce(reply_to.decode("utf-8", "replace")) == message.id
    message.sid, message.n = _count(fields)


def _count(fields: dict[bytes, bytes]) -> tuple[str | None, int]:
    """The sender's incarnation and its count to this target, if both make sense."""
    sid = fields.get(b"sid", b"").decode("ascii", "replace")
    n = fields.get(b"n", b"").decode("ascii", "replace")
    return (sid, int(n)) if _SID.fullmatch(sid) and _COUNT.fullmatch(n) else (None, 0)


def _id(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.decode("ascii", "replace")
    return text if is_id(text) else None


def _number(value: bytes | None) -> float | None:
    """A finite, non-negative number of seconds, or None."""
    try:
        number = float(value or b"")
    except ValueError:
        return None
    return number if 0 <= number < 1e12 else None


def entry_time(at: str) -> float:
    """The store's own clock in an entry id, in seconds."""
    return entry_key(at)[0] / 1000 if is_entry_id(at) else 0.0


def is_entry_id(text: str) -> bool:
    """Whether the store takes it as an entry's id; `entry_key` would take more."""
    found = _ENTRY_ID.fullmatch(text)
    return found is not None and all(int(part) < 1 << 64 for part in found.groups())


def group_id(at: str) -> str:
    """The id of a broadcast that brought none: an entry of a private stream may have the same entry id."""
    return f"group:{at}"


def entry_key(at: str) -> tuple[int, int]:
    """An entry id as something that compares as the store compares it."""
    left, _, right = at.partition("-")
    return int(left), int(right or 0)


def entry_after(at: str) -> str:
    """The smallest entry id above `at`; of the greatest that there can be, itself."""
    left, right = entry_key(at)
    if right < 2**64 - 1:
        return f"{left}-{right + 1}"
    return f"{left + 1}-0" if left < 2**64 - 1 else at


def entry_before(at: str) -> str:
    """The greatest entry id below `at`."""
    left, right = entry_key(at)
    if right:
        return f"{left}-{right - 1}"
    return f"{left - 1}-{2**64 - 1}" if left else "0-0"
