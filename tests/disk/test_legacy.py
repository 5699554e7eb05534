"""The files that 0.1 leaves, as it writes them: taken over once, and nothing of them makes a start fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core import records
from meshd.core.agent import AgentCore
from meshd.core.clock import Wall
from meshd.core.ledger import MAX_ENTRIES
from meshd.core.records import Entry, Moved, Position
from meshd.disk import legacy
from tests.core.model import KEYS

AT = "1700000000000-3"


def line(entry_id: str = "3f2a-1", **changed: object) -> dict[str, object]:
    """An entry as 0.1 writes it."""
    entry = {
        "id": entry_id,
        "dir": "out",
        "peer": "carol",
        "msg_id": entry_id,
        "sent_ts": 1_700_000_000.25,
        "deadline_ts": 1_700_000_120.25,
        "tries": 0,
        "note": "ready?",
        "escalated": False,
    }
    return {**entry, **changed}


def pending(folder: Path, *lines: object) -> legacy.Left:
    """What is found with these lines in bob's ledger: texts, or what 0.1 makes JSON of."""
    text = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines)
    (folder / "pending-bob.jsonl").write_text(text)
    return legacy.find("bob", str(folder))


def test_nothing_left_is_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        assert legacy.find("bob", str(folder)) == legacy.Left()


def test_all_that_0_1_left_is_found_and_taken_once(tmp_path: Path) -> None:
    """Renamed, not removed: a person can look at it, and 0.1's own other files are as they were."""
    (tmp_path / "bob.id").write_text(AT)
    (tmp_path / "bob_group.id").write_text("1700000000007-0")
    (tmp_path / "notify-bob.log").write_text("📨 carol: hi\n")
    (tmp_path / "monitor-bob.lock").write_text("7")
    left = pending(tmp_path, line())
    assert (left.cursor, left.group, left.troubles) == (AT, "1700000000007-0", ())
    (entry,) = left.entries
    assert (entry.id, entry.to, entry.text, entry.state) == ("3f2a-1", "carol", "ready?", "open")
    assert (entry.sent, entry.deadline, entry.due, entry.pings) == (1700000000.25, 1700000120.25, 1700000120.25, 0)
    assert len(left.files) == 3
    left.mark_taken()
    assert sorted(os.listdir(tmp_path)) == [
        "bob.id.taken-over",
        "bob_group.id.taken-over",
        "monitor-bob.lock",
        "notify-bob.log",
        "pending-bob.jsonl.taken-over",
    ]
    assert (tmp_path / "bob.id.taken-over").read_text() == AT
    assert legacy.find("bob", str(tmp_path)) == legacy.Left()
    left.mark_taken()


@pytest.mark.parametrize("text", [AT + "\n", f"  {AT} ", "1700000000000-03"])
def test_a_cursor_as_a_person_may_have_written_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "bob.id").write_text(text)
    assert legacy.find("bob", str(tmp_path)).cursor == AT


def test_another_agent_s_files_are_left_alone(tmp_path: Path) -> None:
    """Also of one whose name begins or ends with this one's."""
    for name in ("bobby.id", "bobby_group.id", "rob.id", "pending-bobby.jsonl", "cursor-bob", "bob.cursor"):
        (tmp_path / name).write_text(AT)
    assert legacy.find("bob", str(tmp_path)) == legacy.Left()


def test_a_file_that_two_agents_have_is_the_place_in_the_group(tmp_path: Path) -> None:
    """0.1 has one file for what `bob` had of the group and what `bob_group` had of its own mail: that is read again."""
    (tmp_path / "bob_group.id").write_text(AT)
    assert legacy.find("bob_group", str(tmp_path)).cursor == AT
    (tmp_path / "bob.id").write_text(AT)
    left = legacy.find("bob_group", str(tmp_path))
    assert (left.cursor, left.files) == ("0-0", ())
    assert "bob's place in the group" in left.troubles[0]
    assert legacy.find("bob", str(tmp_path)).group == AT


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\xff\xfe\x00",
        b"\x00" * 100,
        b"-1",
        b"1700000000000",
        b"{}",
        b"1-2-3",
        b"99999999999999999999-1",
        f"{AT} {AT}".encode(),
        AT.encode() + b" " * 100 + b"x",
        b"9" * 10_000_000,
        "１-１".encode(),
    ],
)
@pytest.mark.parametrize("file", ["bob.id", "bob_group.id"])
def test_a_cursor_file_of_no_use_is_said_and_left_alone(tmp_path: Path, content: bytes, file: str) -> None:
    (tmp_path / file).write_bytes(content)
    left = legacy.find("bob", str(tmp_path))
    assert (left.cursor, left.group, left.files) == ("0-0", None, ())
    (trouble,) = left.troubles
    assert str(tmp_path / file) in trouble
    left.mark_taken()
    assert (tmp_path / file).read_bytes() == content


@pytest.mark.parametrize("kind", ["folder", "fifo", "dangling", "loop", "device", "socket", "unreadable"])
def test_what_is_no_file_is_said_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    """The other files are taken all the same."""
    for file in ("bob.id", "pending-bob.jsonl"):
        path = tmp_path / file
        if kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "dangling":
            path.symlink_to(tmp_path / "none")
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "socket":
            os.mknod(path, 0o140600)
        elif os.getuid() == 0:
            path.symlink_to("/proc/self/mem")  # root may read what its mode forbids; this fails as it is read
        else:
            path.write_text(AT)
            path.chmod(0)
    (tmp_path / "bob_group.id").write_text(AT)
    left = legacy.find("bob", str(tmp_path))
    assert (left.cursor, left.group, left.entries) == ("0-0", AT, ())
    assert left.files == (str(tmp_path / "bob_group.id"),)
    assert len(left.troubles) == (0 if kind == "dangling" else 2)
    assert all(left.troubles)


def test_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    """As it was for 0.1. It is the link that is renamed."""
    (tmp_path / "elsewhere").write_text(AT)
    (tmp_path / "bob.id").symlink_to(tmp_path / "elsewhere")
    left = legacy.find("bob", str(tmp_path))
    assert left.cursor == AT
    left.mark_taken()
    assert (tmp_path / "elsewhere").read_text() == AT


def test_garbage_between_entries_is_counted_and_passed_by(tmp_path: Path) -> None:
    """The last word on an id counts."""
    left = pending(
        tmp_path,
        line("a"),
        "{torn",
        line("b", note="first"),
        [1, 2],
        line("not an id\n"),
        line("c", peer="not a name"),
        line("c", peer=None),
        line("c", dir="in"),
        line("c", tries="3"),
        line("c", tries=-1),
        line("c", tries=1.5),
        line("c", deadline_ts="soon"),
        line("c", deadline_ts=-1),
        line("c", deadline_ts=float("nan")),
        line("c", sent_ts=float("inf")),
        line("c", sent_ts=1e300),
        line("c", sent_ts=10**400),
        line("c", note=["x"]),
        line("c", escalated=1),
        "\x00\x00",
        "",
        line("b", note="last"),
    )
    assert [(entry.id, entry.text) for entry in left.entries] == [("a", "ready?"), ("b", "last")]
    assert [trouble.partition("jsonl ")[2] for trouble in left.troubles] == [
        "of agent-mesh 0.1: 18 lines are of no use"
    ]


def test_half_a_line_at_the_end_loses_that_line_alone(tmp_path: Path) -> None:
    """0.1 was killed as it wrote."""
    (tmp_path / "pending-bob.jsonl").write_text(json.dumps(line("a")) + "\n" + json.dumps(line("b"))[:50])
    left = legacy.find("bob", str(tmp_path))
    assert [entry.id for entry in left.entries] == ["a"]
    assert left.troubles[0].endswith("1 line is of no use")
    (tmp_path / "pending-bob.jsonl").write_text(json.dumps(line("a")))
    assert [entry.id for entry in legacy.find("bob", str(tmp_path)).entries] == ["a"]


def test_a_ledger_without_an_entry_is_left_alone(tmp_path: Path) -> None:
    """0.1 empties it when everything is settled."""
    assert pending(tmp_path) == legacy.Left()
    left = pending(tmp_path, "{torn")
    assert (left.files, len(left.troubles)) == ((), 1)


def test_a_line_separator_in_a_text_does_not_end_its_line(tmp_path: Path) -> None:
    """Only a line feed does."""
    (left,) = pending(tmp_path, json.dumps(line(note="x\u2028y\x85z"), ensure_ascii=False)).entries
    assert left.text == "x\u2028y\x85z"


def test_re_pings_that_were_sent_are_not_sent_again(tmp_path: Path) -> None:
    """0.1 counts them, and writes down when it has sent the last; the ledger goes on with the next step at its time."""
    left = pending(
        tmp_path,
        line("a", sent_ts=200, deadline_ts=100, tries=1),
        line("b", sent_ts=300, deadline_ts=100, tries=2),
        line("c", sent_ts=500, deadline_ts=100, tries=4),
        line("d", sent_ts=900, deadline_ts=100, tries=77),
        line("e", sent_ts=900, deadline_ts=100, tries=5, escalated=True),
        line("f", sent_ts=900, deadline_ts=253_402_300_799, tries=0),
    )
    assert [(e.id, e.pings, e.due, e.state) for e in left.entries] == [
        ("a", 1, 230.0, "open"),
        ("b", 2, 360.0, "open"),
        ("c", 4, 740.0, "open"),
        ("d", 4, 1140.0, "open"),
        ("e", 4, 0.0, "escalated"),
        ("f", 0, 253_402_300_799.0, "open"),
    ]


def test_of_too_many_entries_the_newest_open_ones_are_taken(tmp_path: Path) -> None:
    """And it is said how many were not."""
    lines = [line(f"i{k}", escalated=k % 2 == 0) for k in range(100_000)]
    left = pending(tmp_path, *lines)
    assert [entry.id for entry in left.entries] == [f"i{k}" for k in range(100_000 - 2 * MAX_ENTRIES + 1, 100_000, 2)]
    assert any(str(MAX_ENTRIES) in trouble for trouble in left.troubles)


def test_of_a_huge_ledger_the_end_is_looked_at(tmp_path: Path) -> None:
    """Neither its size nor that of a line counts."""
    path = tmp_path / "pending-bob.jsonl"
    with open(path, "wb") as file:
        file.write(json.dumps(line("first")).encode() + b"\n")
        file.seek(1 << 34)  # a hole, which takes no room
        file.write(b"\n" + json.dumps(line("a")).encode() + b"\n" + b"x" * 1_000_000 + b"\n")
        file.write(json.dumps(line("b")).encode() + b"\n")
    left = legacy.find("bob", str(tmp_path))
    assert [entry.id for entry in left.entries] == ["a", "b"]
    assert [trouble.partition("0.1: ")[2].partition(" bytes")[0] for trouble in left.troubles] == [
        f"of its {path.stat().st_size}",
        "1 line is of no use",
    ]


ODD: list[object] = ["inf", "-inf", "nan", "1e999", 1e300, -5, True, None, [], {}, "", "soon", 10**400, "\u2028"]
names = st.sampled_from(["id", "dir", "peer", "sent_ts", "deadline_ts", "tries", "note", "escalated", "msg_id"])


@given(st.dictionaries(names, st.sampled_from(ODD) | st.floats() | st.integers() | st.text(max_size=5)))
def test_whatever_an_entry_says_the_journal_stays_readable(raw: dict[str, object]) -> None:
    """Infinity and nan have no place in JSON, and a ledger that waits for them waits for ever."""
    for changed in ({**line("a"), **raw}, {**raw, **line("a"), "deadline_ts": raw.get("deadline_ts", 1)}):
        core = AgentCore("bob", KEYS)
        entry = legacy._entry(json.dumps(changed).encode())
        if entry is not None:
            record = Moved(position=Position(), entries=[entry])
            assert records.decode(records.encode(record)) == record
            core.apply(record)
            assert entry.state in ("open", "escalated")
            assert 0 <= entry.due < 1e12
            core.tick(Wall(3e12))


lines = st.lists(st.sampled_from([json.dumps(line()), "{", "\n", "}"])).map("".join).map(str.encode)


@given(st.binary(max_size=300) | lines)
def test_whatever_stands_in_the_files_something_is_found(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """And what is not is told."""
    folder = tmp_path_factory.mktemp("left")
    for file in ("bob.id", "bob_group.id", "pending-bob.jsonl"):
        (folder / file).write_bytes(content)
    left = legacy.find("bob", str(folder))
    assert all(isinstance(entry, Entry) for entry in left.entries)
    assert len(left.files) + len(left.troubles) >= 2
