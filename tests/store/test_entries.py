"""Registry entries, which anybody may write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.clock import Stored
from meshd.hosting.entries import Entries

values = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b'{"role":"a","ts":5}', b'{"role":"b"}', b'{"wake":["notify"]}', b'{"role":"%s"}' % (b"x" * 2000)]
    ),
)
found = st.lists(st.tuples(st.sampled_from(["alice", "bob"]), values), max_size=3, unique_by=lambda entry: entry[0])


@given(answers=st.lists(found, max_size=5))
def test_what_is_remembered_is_what_is_there(answers: list[list[tuple[str, bytes]]]) -> None:
    """However entries come, change, grow and go between two looks, each look shows what it would show alone."""
    entries = Entries()
    for now, answer in enumerate(answers):
        then = Stored(now)
        shown = entries.shown(answer, then)
        assert shown == Entries().shown(answer, then)
        for entry in shown:
            entry.role = "changed"  # what was given away is the caller's
