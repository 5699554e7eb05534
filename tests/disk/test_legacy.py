"""What 0.1 left behind: taken over once, and nothing of it makes a start fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core import records
from meshd.core.agent import AgentCore
from meshd.core.clock import Wall
from meshd.core.records import Opened
from meshd.disk import legacy
from tests.core.model import KEYS


def test_nothing_left_is_nothing_found(tmp_path: Path) -> None:
    assert legacy.find("bob", str(tmp_path)) == legacy.Left("0-0", [], [])
    assert legacy.find("bob", str(tmp_path / "none")) == legacy.Left("0-0", [], [])


@pytest.mark.parametrize("name", ["cursor-bob", "cursor-bob.json", "bob.cursor", "cursor_bob", "last-id-bob"])
@pytest.mark.parametrize("content", ["1700000000000-3", "1700000000000-3\n", '{"last_id": "1700000000000-3", "v": 1}'])
def test_a_cursor_is_found_and_taken_once(tmp_path: Path, name: str, content: str) -> None:
    """Renamed, not removed: a person can look at it."""
    (tmp_path / name).write_text(content)
    left = legacy.find("bob", str(tmp_path))
    assert left.cursor == "1700000000000-3"
    left.mark_taken()
    assert (tmp_path / (name + legacy.TAKEN)).read_text() == content
    assert not (tmp_path / name).exists()
    assert legacy.find("bob", str(tmp_path)).cursor == "0-0"


def test_the_newest_of_several_cursors_counts(tmp_path: Path) -> None:
    """By number, not by letter."""
    (tmp_path / "cursor-bob").write_text("1700000000000-10 1700000000000-9")
    (tmp_path / "bob.cursor").write_text("1600000000000-99")
    assert legacy.find("bob", str(tmp_path)).cursor == "1700000000000-10"


def test_another_agent_s_files_are_left_alone(tmp_path: Path) -> None:
    """Also of one whose name begins with this one's."""
    for name in ("cursor-bobby", "bobby.cursor", "cursor_bobby", "last-id-bobby"):
        (tmp_path / name).write_text("1700000000000-3")
    (tmp_path / "pending-bobby.jsonl").write_text('{"id":"a","to":"x"}')
    assert legacy.find("bob", str(tmp_path)) == legacy.Left("0-0", [], [])


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe\x00", b"-1", b"12-3", b"{}"])
def test_a_cursor_file_of_no_use_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cursor-bob").write_bytes(content)
    left = legacy.find("bob", str(tmp_path))
    assert left == legacy.Left("0-0", [], [])
    left.mark_taken()
    assert (tmp_path / "cursor-bob").read_bytes() == content


def pending(folder: Path, *lines: object) -> legacy.Left:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "pending-bob.jsonl").write_text(text)
    return legacy.find("bob", str(folder))


def test_open_entries_are_taken_over(tmp_path: Path) -> None:
    """With their deadline; garbage between them is passed by, and the last word on an id counts."""
    left = pending(
        tmp_path,
        {"id": "a", "to": "carol", "msg": "ready?", "ts": 100.0, "deadline": 160.0},
        "{torn",
        {"msg_id": "b", "target": "dora", "message": "and you?", "sent_at": 100},
        [1, 2],
        {"id": "c", "to": "carol", "msg": "x", "ts": 1},
        {"id": "c", "to": "carol", "status": "settled"},
        {"id": "not an id\n", "to": "carol"},
        {"id": "d", "to": "not a name"},
        "",
    )
    assert [(e.id, e.to, e.text, e.sent, e.deadline) for e in left.entries] == [
        ("a", "carol", "ready?", 100.0, 160.0),
        ("b", "dora", "and you?", 100.0, 220.0),
    ]
    assert all(e.state == "open" and e.due == e.deadline for e in left.entries)
    left.mark_taken()
    assert legacy.find("bob", str(tmp_path)) == legacy.Left("0-0", [], [])


def test_a_line_separator_in_a_text_does_not_end_its_line(tmp_path: Path) -> None:
    """Only a line feed does."""
    (left,) = pending(tmp_path, '{"id":"a","to":"carol","msg":"x\u2028y\x85z","ts":1}').entries
    assert left.text == "x\u2028y\x85z"


def test_re_pings_that_were_sent_are_not_sent_again(tmp_path: Path) -> None:
    """The ledger goes on with the next step at its time."""
    left = pending(
        tmp_path,
        {"id": "a", "to": "carol", "msg": "x", "ts": 0, "deadline": 100, "repings": 2},
        {"id": "b", "to": "carol", "msg": "x", "ts": 0, "deadline": 100, "repings": 4},
        {"id": "c", "to": "carol", "msg": "x", "ts": 0, "deadline": 100, "state": "responded"},
    )
    assert [(e.id, e.pings, e.due, e.state) for e in left.entries] == [
        ("a", 2, 190.0, "open"),
        ("b", 4, 550.0, "open"),
        ("c", 0, 0.0, "responded"),
    ]


ODD: list[object] = ["inf", "-inf", "nan", "1e999", 1e300, -5, True, None, [], {}, "", "soon", 10**400, "\u2028"]
fields = st.sampled_from(["ts", "sent", "deadline", "due", "state", "status", "repings", "pings", "count", "msg"])


@given(st.dictionaries(fields, st.sampled_from(ODD) | st.floats() | st.integers() | st.text(max_size=5)))
def test_whatever_an_entry_says_the_journal_stays_readable(raw: dict[str, object]) -> None:
    """Infinity and nan have no place in JSON, and a ledger that waits for them waits for ever."""
    for line in (json.dumps({**raw, "id": "a", "to": "carol"}), json.dumps({"id": "a", "to": "carol", **raw})):
        core = AgentCore("bob", KEYS)
        for entry in legacy._entry(line).values():
            if entry is not None:
                record = Opened(entry=entry)
                assert records.decode(records.encode(record)) == record
                core.apply(record)
                assert entry.state in ("open", "responded")
                assert 0 <= entry.due < 2e12
                core.tick(Wall(3e12))
