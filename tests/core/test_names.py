"""Names, ids, nonces and keys: the whole text or nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshd.core.backoff import Backoff
from meshd.core.names import Keys, check_id, check_name, is_id, is_name, is_nonce, new_id
from meshd.errors import UsageError

ALLOWED = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


@given(st.text(max_size=70) | st.text(alphabet=sorted(ALLOWED), max_size=70))
@example("alice\n")
@example("a" * 64)
@example("a" * 65)
@example("ａ")
@example("٣")
def test_a_name_is_1_to_64_of_its_characters(text: str) -> None:
    """In full: neither a trailing newline nor another alphabet's digit belongs to one."""
    valid = 1 <= len(text) <= 64 and set(text) <= ALLOWED
    assert is_name(text) == valid
    if valid:
        assert check_name(text) == text
    else:
        with pytest.raises(UsageError) as refused:
            check_name(text, "target")
        assert refused.value.message.isprintable()
        assert refused.value.data["parameter"] == "target"


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "it is empty"), ("x" * 65, "65 characters"), ("a b", "contains ' '"), ("a\x1b", r"contains '\x1b'")],
)
def test_a_bad_name_is_told_what_is_wrong(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=re.escape(part)):
        check_name(text)


def test_a_star_is_told_of_broadcast() -> None:
    with pytest.raises(UsageError) as refused:
        check_name("*")
    assert "meshctl broadcast" in refused.value.hint


def test_new_ids_are_nonces_and_ids() -> None:
    """32 lowercase hex digits, never the same twice."""
    made = {new_id() for _ in range(100)}
    assert len(made) == 100
    assert all(is_nonce(i) and is_id(i) and check_id(i) == i for i in made)


@pytest.mark.parametrize("bad", ["", "a\n", "a b", "é", "x" * 65, "a/b", "\x00"])
def test_a_bad_id_is_refused(bad: str) -> None:
    assert not is_id(bad)
    with pytest.raises(UsageError):
        check_id(bad)


@pytest.mark.parametrize("bad", ["", "0" * 31, "0" * 33, "0" * 32 + "\n", "A" * 32, "g" * 32])
def test_a_nonce_is_exactly_32_lowercase_hex_digits(bad: str) -> None:
    assert not is_nonce(bad)


@given(prefix=st.sampled_from(["mesh", "{mesh}", "a:b", "x.y"]), key=st.text(max_size=60))
def test_only_a_reply_key_has_a_nonce(prefix: str, key: str) -> None:
    """There and back for one of ours, nothing for any other text."""
    keys = Keys(prefix)
    nonce = "0123456789abcdef" * 2
    assert keys.reply_nonce(keys.reply(nonce)) == nonce
    assert keys.reply_nonce(key) is None
    assert keys.reply_nonce(keys.reply(key)) is None or is_nonce(key)
    assert keys.reply_nonce(nonce) is None


def test_the_wire_s_keys() -> None:
    """As SPEC.md, section 2, spells them."""
    keys = Keys("mesh")
    assert keys.inbox("bob") == "mesh:to_bob"
    assert keys.group == "mesh:group"
    assert keys.pong("0") == "mesh:pong:0"
    assert keys.reply("0") == "mesh:reply:0"
    assert keys.audit == "mesh:gate:audit"
    assert keys.rate("a", "b") == "mesh:gate:rate:a->b"
    assert keys.registry("bob") == "mesh:registry:bob"


@pytest.mark.parametrize("key", [b"mesh:registry:a b", b"mesh:registry:", b"mesh:registry:\xff", b"other:registry:a"])
def test_a_stranger_s_registry_key_is_no_name(key: bytes) -> None:
    assert Keys("mesh").registered_name(key) is None
    assert Keys("mesh").registered_name(b"mesh:registry:bob") == "bob"


@given(attempts=st.integers(1, 60), cap=st.floats(0.1, 10))
def test_a_pause_is_no_longer_than_is_known_to_be_enough(attempts: int, cap: float) -> None:
    """However often it failed before."""
    backoff = Backoff()
    for _ in range(attempts):
        assert backoff.next(cap) <= min(cap, backoff.cap)


@given(base=st.floats(0.001, 10), cap=st.floats(0.001, 100), attempts=st.integers(1, 60))
def test_backoff_stays_within_its_bounds(base: float, cap: float, attempts: int) -> None:
    """Never over the cap or the doubled base, never under a tenth of it, however often it is asked."""
    backoff = Backoff(base, cap)
    for n in range(attempts):
        ceiling = min(cap, base * 2**n)
        assert ceiling / 10 <= backoff.next() <= ceiling
    backoff.reset()
    assert backoff.next() <= min(cap, base)


@given(attempts=st.integers(1, 20), factor=st.floats(0, 2))
def test_a_backoff_starts_over_with_a_success_that_outlasts_its_price(attempts: int, factor: float) -> None:
    """However often that happens; what ends at once, again and again, is tried ever less often."""
    backoff = Backoff()
    for _ in range(attempts):
        paused = backoff.next()
    backoff.stood(paused * factor)
    assert (backoff.attempts == 0) == (factor > 1)
