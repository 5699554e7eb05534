"""From bytes to lines: the same lines however the bytes are cut, and never more kept than one line may hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.control.framing import Lines

LONGEST = 8
# Mostly newlines and lines about as long as they may be: that is where the edges are.
streams = st.lists(
    st.one_of(st.just(b"\n"), st.binary(max_size=3), st.integers(LONGEST - 1, LONGEST + 1).map(lambda n: b"x" * n)),
    max_size=12,
).map(b"".join)


def expected(data: bytes) -> tuple[list[bytes], bool]:
    """Lines and `too_long`, by the plainest way."""
    *whole, rest = data.split(b"\n")
    lines: list[bytes] = []
    for line in whole:
        if len(line) > LONGEST:
            return lines, True
        lines.append(line)
    return lines, len(rest) > LONGEST


@given(streams, st.lists(st.integers(0, 100), max_size=8))
def test_any_cut_of_the_bytes_gives_the_same_lines(data: bytes, places: list[int]) -> None:
    cuts = sorted(min(place, len(data)) for place in places)
    lines = Lines(LONGEST)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += lines.feed(data[start:end])
        assert lines.held <= LONGEST
    assert (found, lines.too_long) == expected(data)


@given(streams, streams)
def test_behind_a_line_that_is_too_long_nothing_is_taken(before: bytes, behind: bytes) -> None:
    lines = Lines(LONGEST)
    lines.feed(before + b"x" * (LONGEST + 1))
    assert lines.too_long
    assert lines.feed(b"\n" + behind + b"\n") == []
    assert lines.held == 0


def test_a_line_of_the_greatest_length_is_one() -> None:
    lines = Lines(LONGEST)
    assert lines.feed(b"x" * LONGEST) == []
    assert lines.held == LONGEST
    assert lines.feed(b"\n") == [b"x" * LONGEST]
    assert not lines.too_long
