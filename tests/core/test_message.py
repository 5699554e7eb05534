"""What a hostile peer may write: nothing raises, nothing forges a line, nothing aims our writes."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.core import records
from meshd.core.message import Malformed, Message, Ping, decode, entry_before, entry_key, is_entry_id
from meshd.core.names import is_id, is_name
from meshd.core.records import Batch
from meshd.core.text import LINE_LIMIT, block, cut, one_line
from tests.core.model import KEYS, fields

LIMIT = 1000
NONCE = "0123456789abcdef" * 2
NAMES = [
    "from", "msg", "ts", "id", "msg_type", "nonce", "expect_reply", "deadline", "reply_to", "to", "re", "thread",
    "about", "sid", "n", "v", "moved",
]  # fmt: skip
HOSTILE = [
    b"", b"alice", b"ping", b"*", b"1", b"-1", b"nan", b"inf", b"-inf", b"1e999", b"9" * 400, b"0x10", b"\xff\xfe",
    b"a\nb", b"alice\n", b"\x1b[31m", "‮".encode(), "\u2028".encode(), "\x85".encode(), b"x" * 65,
    NONCE.encode(), f"mesh:reply:{NONCE}".encode(), b"mesh:to_bob", b"\x00",
]  # fmt: skip
entry_ids = st.builds("{}-{}".format, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)).map(str.encode)
values = st.sampled_from(HOSTILE) | st.binary(max_size=80) | st.text(max_size=80).map(lambda s: s.encode("utf-8"))
flats = st.lists(st.tuples(st.sampled_from(NAMES).map(str.encode) | st.binary(max_size=8), values), max_size=20).map(
    lambda pairs: [part for pair in pairs for part in pair]
)
# Every physical line of any reader: Python's idea of a line break is the widest there is.
FORBIDDEN = {"\u2028", "\u2029", "\x85", "\x1b", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


def assert_one_line(line: str) -> None:
    assert len(line.splitlines()) == 1
    assert not FORBIDDEN & set(line)
    assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]


@settings(max_examples=400)
@given(
    entry_id=entry_ids | st.binary(max_size=20), flat=st.none() | flats | st.lists(st.binary(max_size=9), max_size=9)
)
@example(entry_id=b"1-0", flat=[b"from"])
@example(entry_id=b"\xff\n", flat=[b"from", b"alice", b"msg", b"x"])
def test_no_entry_makes_decoding_fail(entry_id: bytes, flat: list[bytes] | None) -> None:
    """Whatever the bytes are, a message, a ping or a malformed entry comes out."""
    assert isinstance(decode(entry_id, flat, KEYS, LIMIT), Message | Ping | Malformed)


@settings(max_examples=400)
@given(entry_id=entry_ids, more=flats, body=st.text(max_size=900))
def test_a_decoded_message_is_safe_in_every_part(entry_id: bytes, more: list[bytes], body: str) -> None:
    """Whatever the optional fields say: checked values, one line, and a record that is read back as it was."""
    decoded = decode(entry_id, [*more, b"from", b"alice", b"msg", body.encode()], KEYS, 10_000)
    if isinstance(decoded, Ping):
        assert is_name(decoded.sender)
        return
    if isinstance(decoded, Malformed):
        assert b"ping" in more
        assert_one_line(one_line(decoded.line))
        return
    assert is_id(decoded.id)
    for value in (decoded.re, decoded.thread, decoded.about):
        assert value is None or is_id(value)
    assert decoded.to is None or decoded.to == "*" or is_name(decoded.to)
    assert decoded.deadline is None or 0 <= decoded.deadline < math.inf
    assert 0 <= decoded.ts < math.inf
    assert not decoded.request or decoded.public(KEYS)["reply_to"] == f"mesh:reply:{decoded.id}"
    line = decoded.notify_line()
    assert_one_line(line)
    assert len(line) <= LINE_LIMIT
    assert line.endswith(f" [{decoded.id}]")
    assert line[2:].startswith("alice: ")
    batch = Batch(messages=[decoded])
    assert records.decode(records.encode(batch)) == batch


@given(body=st.text(max_size=2000), sender=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_a_notify_line_is_at_most_500_characters_with_its_id_whole(body: str, sender: str) -> None:
    """Tools cut at 500; what a reader needs to fetch the rest stands before that."""
    message = Message(id="f" * 64, sender=sender, text=body, ts=1.0, at="1-0")
    line = message.notify_line()
    assert_one_line(line)
    assert len(line) <= LINE_LIMIT
    assert line.endswith(" [" + "f" * 64 + "]")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"from_": None}, "no sender"),
        ({"from_": "not a name"}, "its sender is not a name"),
        ({"from_": "alice\n"}, "its sender is not a name"),
        ({"from_": "x" * 65}, "its sender is not a name"),
        ({"from_": b"\xff"}, "its sender is not a name"),
        ({"from_": ""}, "its sender is not a name"),
        ({"msg": None}, "no text, from alice"),
        ({"msg": b"\xc3("}, "its text is not valid UTF-8, from alice"),
        ({"msg": b"\xed\xa0\x80"}, "its text is not valid UTF-8, from alice"),
        ({"msg": "x" * (LIMIT + 1)}, f"{LIMIT + 1} bytes, over the limit of {LIMIT}, from alice"),
        ({"msg": "é" * (LIMIT // 2) + "x"}, f"{LIMIT + 1} bytes, over the limit of {LIMIT}, from alice"),
        ({"msg_type": "ping"}, "a ping from alice without a nonce"),
        ({"msg_type": "ping", "nonce": NONCE.upper()}, "a ping from alice without a nonce"),
        ({"msg_type": "ping", "nonce": NONCE + "\n"}, "a ping from alice without a nonce"),
    ],
)
def test_what_is_no_message_says_why(change: dict[str, str | bytes | None], reason: str) -> None:
    """Quarantined with its reason, and its fields as they came."""
    whole: dict[str, str | bytes | None] = {"from_": "alice", "msg": "hi", "ts": "1", "id": "m", **change}
    flat = fields(**{name: value for name, value in whole.items() if value is not None})
    assert decode(b"5-1", flat, KEYS, LIMIT) == Malformed("5-1", reason, tuple(flat))


@pytest.mark.parametrize("flat", [None, [], [b"from"], [b"from", b"alice", b"msg"]])
def test_an_entry_without_whole_fields_is_malformed(flat: list[bytes] | None) -> None:
    """A deleted entry has none, a broken one half a pair."""
    assert isinstance(decode(b"5-1", flat, KEYS, LIMIT), Malformed)


def message(**values: str | bytes) -> Message:
    decoded = decode(b"1700000000123-4", fields(**{"from_": "alice", "msg": "hi", **values}), KEYS, LIMIT)
    assert isinstance(decoded, Message)
    return decoded


def test_a_message_at_the_limit_is_delivered() -> None:
    assert message(msg="é" * (LIMIT // 2)).text == "é" * (LIMIT // 2)


def test_what_0_1_writes_is_a_message() -> None:
    """from, msg, ts, id and nothing else; without an id and a time the entry's own are taken."""
    full = message(ts="1700000000.5", id="abc")
    assert (full.id, full.ts, full.kind, full.sid) == ("abc", 1700000000.5, "direct", None)
    bare = message()
    assert (bare.id, bare.ts) == ("1700000000123-4", 1700000000.123)


@pytest.mark.parametrize("bad", ["", "a b", "a\n", "\x1b[2J", "x" * 65, "é", b"\xff"])
def test_an_id_with_a_senseless_value_is_replaced_by_the_entry_s(bad: str | bytes) -> None:
    """The message is delivered; what it points at counts as missing."""
    got = message(ts="1", id=bad, re=bad, thread=bad, about=bad)
    assert (got.id, got.re, got.thread, got.about, got.kind) == ("1700000000123-4", None, None, None, "direct")


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "-1", "1e999", "soon", "", "1e12", b"\xff", "1" * 5000])
def test_a_number_that_is_none_counts_as_missing(bad: str | bytes) -> None:
    """A deadline of infinity or nan must not reach a timer or a JSON file."""
    got = message(ts=bad, id="m", deadline=bad)
    assert (got.ts, got.deadline) == (1700000000.123, None)


@pytest.mark.parametrize(
    "reply_to",
    [
        "mesh:to_bob", "mesh:group", f"other:reply:{NONCE}", f"mesh:reply:{NONCE}\n", f"mesh:reply:{NONCE}x",
        f"mesh:reply:{NONCE.upper()}", "mesh:reply:", "", f"mesh:reply:{'f' * 32}", f"mesh:reply:mesh:reply:{NONCE}",
        b"mesh:reply:\xff",
    ],
)  # fmt: skip
def test_a_reply_goes_nowhere_but_to_the_message_s_own_reply_key(reply_to: str | bytes) -> None:
    """`reply_to` that names anything else makes no request of the message."""
    got = message(ts="1", id=NONCE, expect_reply="1", reply_to=reply_to)
    assert not got.request
    assert "reply_to" not in got.public(KEYS)


def test_a_request_tells_where_its_reply_goes() -> None:
    got = message(ts="1", id=NONCE, expect_reply="1", deadline="99.5", reply_to=f"mesh:reply:{NONCE}")
    assert got.request
    assert got.public(KEYS) == {
        "id": NONCE,
        "from": "alice",
        "text": "hi",
        "ts": 1.0,
        "kind": "direct",
        "deadline": 99.5,
        "expect_reply": True,
        "reply_to": f"mesh:reply:{NONCE}",
    }


@pytest.mark.parametrize(
    ("sid", "n"), [("5E", "1"), ("", "1"), ("5e", ""), ("5e", "-1"), ("5e", "1.0"), ("5e", "9" * 16), ("5e", "١")]
)
def test_a_count_that_is_none_is_ignored(sid: str, n: str) -> None:
    """Only a hexadecimal incarnation with a plain number can tell of a gap."""
    got = message(ts="1", id="m", sid=sid, n=n)
    assert (got.sid, got.n) == (None, 0)


@pytest.mark.parametrize("to", ["not a name", "x" * 65, "a\nb", "", "**", b"\xff"])
def test_a_target_that_is_no_name_counts_as_missing(to: str | bytes) -> None:
    """It is kept in counters and shown to programs."""
    assert message(ts="1", id="m", to=to).to is None


def test_a_broadcast_without_an_id_has_none_of_the_private_stream() -> None:
    """Entries of the two streams may have one id; read again, each gets the same one."""
    for wrong in ({}, {"id": "no id"}):
        private, broadcast = message(ts="1", **wrong), message(ts="1", to="*", **wrong)
        assert (private.id, private.kind) == (private.at, "direct")
        assert (broadcast.id, broadcast.kind) == (f"group:{broadcast.at}", "broadcast")


def test_kinds() -> None:
    """A broadcast is one whatever else it says; a re-ping names what it is about."""
    assert message(ts="1", id="m", to="*", about="x").kind == "broadcast"
    assert message(ts="1", id="m", to="bob", about="x").kind == "reping"
    assert message(ts="1", id="m", to="bob").kind == "direct"
    assert message(ts="1", id="m", to="*").notify_line() == "📢 alice: hi [m]"
    assert message(ts="1", id="m", about="x").notify_line() == "⏰ alice: hi [m]"


def test_a_ping_of_0_1() -> None:
    flat = fields(from_="alice", msg_type="ping", nonce=NONCE, ts="12.5")
    assert decode(b"1-0", flat, KEYS, LIMIT) == Ping("alice", NONCE, 12.5, "1-0")
    assert decode(b"1-0", [*flat, b"moved", b"x"], KEYS, LIMIT) == Ping("alice", NONCE, 12.5, "1-0", moved=True)


@given(st.one_of(st.text(), st.from_regex(r"\A\d{0,21}-\d{0,21}\Z"), st.from_regex(r"\A[0-9]{1,20}-[0-9]{1,20}\Z")))
@example("18446744073709551615-18446744073709551615")
@example("18446744073709551616-0")
@example("1-1\n")
def test_an_entry_id_is_two_numbers_of_64_bits(text: str) -> None:
    """As the store reads it; `int` takes signs, spaces, underscores and the digits of other scripts."""
    left, dash, right = text.partition("-")
    digits = all(0 < len(part) <= 20 and set(part) <= set("0123456789") for part in (left, right))
    assert is_entry_id(text) == (digits and dash == "-" and max(int(left), int(right)) < 1 << 64)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@example(0, 0)
@example(5, 0)
def test_entry_before_is_the_greatest_id_below(left: int, right: int) -> None:
    """As the store orders them: nothing lies between."""
    before = entry_key(entry_before(f"{left}-{right}"))
    if (left, right) == (0, 0):
        assert before == (0, 0)
    else:
        assert before[0] * 2**64 + before[1] == left * 2**64 + right - 1


@given(st.text())
@example("a\r\nb\x1b[31m\u2028\u2029\x85\x0b\x0c\x1c\u202e\u2066\ufeff\U000e0041\x00\x7f")
def test_one_line_leaves_nothing_that_breaks_or_colours_a_line(text: str) -> None:
    """What is harmless comes through as it is, and nothing harmful does."""
    line = one_line(text)
    assert len((line + "x").splitlines()) == 1
    assert not FORBIDDEN & set(line)
    assert not {c for c in line if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    assert unicodedata.bidirectional(line[:1] or "x") not in ("LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI", "FSI")
    if text.isprintable():
        assert line == text
    assert one_line(line) == line


@given(st.text())
@example("a\r\nb\x1b[31m\u2028\u202e\t")
def test_a_block_keeps_line_feeds_and_tabs_only(text: str) -> None:
    """A carriage return, an escape or a bidi control in a text of many lines is made visible."""
    shown = block(text)
    assert shown.count("\n") == text.count("\n")
    assert shown.count("\t") == text.count("\t")
    assert [one_line(part) for part in shown.replace("\t", "").split("\n")] == shown.replace("\t", "").split("\n")


@given(st.text(), st.integers(1, 50))
def test_cut_never_exceeds_its_limit(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert len(short) <= limit
    assert short == text if len(text) <= limit else short == text[: limit - 1] + "…"
