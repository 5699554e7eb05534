"""The journal: what was synced survives, whatever happens to the rest of the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.core.agent import AgentCore
from meshd.core.inbox import StreamInfo
from meshd.core.message import Message
from meshd.core.records import Batch, Closed, Header, Opened, Position, Read, Record, Snapshot
from meshd.disk.journal import COMPACT_SIZE, Journal
from meshd.errors import ConfigError
from tests.core.model import KEYS, state


def message(k: int, text: str = "hi\n\u2028“there”") -> Message:
    return Message(id=f"m{k}", sender="alice", text=text, ts=1.5, at=f"{k}-0", index=k, sid="5e", n=k)


def batch(k: int, **more: object) -> Batch:
    return Batch(now=2.5, position=Position(f"{k}-0", k), messages=[message(k)], counts={"5e alice ": k}, offset=k)


HISTORY: list[Record] = [batch(1), batch(2), Read(ids=["m1"]), batch(3), Closed(ids=["x"])]


def write(path: Path, *records: Record) -> bytes:
    journal = Journal(str(path), "bob")
    for record in records:
        journal.append([record])
    journal.close()
    return path.read_bytes()


def load(path: Path) -> list[Record]:
    """What stands there, without the header."""
    return [record for record in Journal(str(path), "bob").load() if not isinstance(record, Header)]


def test_what_was_appended_is_loaded(tmp_path: Path) -> None:
    """In order, behind a header; and nothing from a file that is not there."""
    path = tmp_path / "bob.journal"
    assert Journal(str(path), "bob").load() == []
    write(path, *HISTORY)
    assert Journal(str(path), "bob").load() == [Header(name="bob"), *HISTORY]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_tail_torn_at_any_byte_is_cut_and_all_before_it_survives(tmp_path: Path) -> None:
    """And what is appended afterwards is loaded with it."""
    whole = write(tmp_path / "whole", *HISTORY)
    ends = [k + 1 for k, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / "torn"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        survivors = HISTORY[: max(0, sum(end <= cut for end in ends) - 1)]
        journal = Journal(str(path), "bob")
        assert [r for r in journal.load() if not isinstance(r, Header)] == survivors
        assert journal.damaged == 0
        assert path.read_bytes() == whole[: max([0, *(end for end in ends if end <= cut)])]
        journal.append([Closed(ids=["after"])])
        journal.close()
        assert Journal(str(path), "bob").load() == [Header(name="bob"), *survivors, Closed(ids=["after"])]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["torn", "whole"]


@settings(max_examples=60, deadline=None)
@given(tail=st.binary(max_size=200))
def test_garbage_behind_the_last_record_is_cut(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    """As a block that was allocated and never written leaves it."""
    path = tmp_path_factory.mktemp("j") / "bob"
    whole = write(path, *HISTORY)
    path.write_bytes(whole + tail)
    assert load(path) == HISTORY
    assert path.read_bytes() == whole


@settings(max_examples=60, deadline=None)
@given(line=st.integers(0, len(HISTORY) - 1), place=st.floats(0, 0.999), bit=st.integers(0, 7))
@example(line=len(HISTORY) - 1, place=0.999, bit=0)  # joined with the last line: no good one follows
def test_a_damaged_line_loses_itself_only_and_a_copy_is_kept(
    tmp_path_factory: pytest.TempPathFactory, line: int, place: float, bit: int
) -> None:
    """One flipped bit anywhere before the last record, its checksum and its line break included."""
    folder = tmp_path_factory.mktemp("j")
    path = folder / "bob"
    lines = write(path, *HISTORY).splitlines(keepends=True)
    damaged = bytearray(lines[line])
    damaged[int(place * len(damaged))] ^= 1 << bit
    lines[line] = bytes(damaged)
    path.write_bytes(b"".join(lines))
    before = path.read_bytes()
    journal = Journal(str(path), "bob")
    got = journal.load()
    expected = [Header(name="bob"), *HISTORY]
    # A flipped line break joins two lines into one, so that two are lost.
    lost = 2 if damaged[-1:] != b"\n" else 1
    assert got == expected[:line] + expected[line + lost :]
    assert journal.damaged in (1, 2)  # a bit may make a line break of a letter
    (copy,) = folder.glob("bob.damaged-*")
    assert copy.read_bytes() == before
    again = Journal(str(path), "bob")
    assert again.load() == got
    assert again.damaged == 0


@pytest.mark.parametrize(
    "newer",
    [b'{"t":"journal","name":"bob","format":2}', b'{"t":"hologram","x":1}', b'{"t":"read","ids":5}'],
    ids=["its format", "its records", "a field of it"],
)
def test_a_newer_format_is_refused_and_the_file_untouched(tmp_path: Path, newer: bytes) -> None:
    """Even with a torn tail: the newer program will want to cut that itself."""
    import zlib

    path = tmp_path / "bob"
    whole = write(path, *HISTORY) + b"%08x %s\n" % (zlib.crc32(newer), newer) + b"torn"
    path.write_bytes(whole)
    with pytest.raises(ConfigError, match="newer") as refused:
        Journal(str(path), "bob").load()
    assert str(path) in refused.value.message
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["bob"]


def test_fields_of_a_later_minor_version_are_ignored(tmp_path: Path) -> None:
    """A record may gain a field without a new format."""
    import zlib

    path = tmp_path / "bob"
    body = b'{"t":"read","ids":["m1"],"mood":"fine"}'
    path.write_bytes(write(path, batch(1)) + b"%08x %s\n" % (zlib.crc32(body), body))
    assert load(path) == [batch(1), Read(ids=["m1"])]


def test_a_disk_that_is_full_at_any_byte_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The append fails as a whole; once there is room the same append succeeds."""
    script = """
import os, resource, sys
from meshd.core.records import Closed
from meshd.disk.journal import Journal
path = sys.argv[1]
first, second = Closed(ids=["a"]), [Closed(ids=["b"]), Closed(ids=["c" * 50])]
journal = Journal(path, "bob")
journal.append([first])
before = open(path, "rb").read()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
failures = 0
for room in range(200):
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
    try:
        journal.append(second)
    except OSError:
        failures += 1
        assert open(path, "rb").read() == before, room
    else:
        break
assert [type(r).__name__ for r in Journal(path, "bob").load()] == ["Header", "Closed", "Closed", "Closed"]
print(failures, os.path.getsize(path) - len(before))
"""
    path = tmp_path / "bob"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=os.getcwd(), check=False
    )
    assert done.returncode == 0, done.stderr
    failures, grown = map(int, done.stdout.split())
    assert failures == grown > 100
    assert load(path) == [Closed(ids=["a"]), Closed(ids=["b"]), Closed(ids=["c" * 50])]


def test_a_full_file_system_refuses_and_recovers(tmp_path: Path) -> None:
    """ENOSPC of a real file system: appending and compacting fail, and what was there is there."""
    script = """
mount -t tmpfs -o size=64k tmpfs "$1" && exec "$2" - "$1" <<'END'
import errno, os, sys
from meshd.core.records import Closed
from meshd.disk.journal import Journal
folder = sys.argv[1]
path = os.path.join(folder, "bob")
journal = Journal(path, "bob")
journal.append([Closed(ids=["a"])])
with open(os.path.join(folder, "ballast"), "wb") as ballast:
    try:
        while True:
            ballast.write(b"x" * 4096)
            ballast.flush()
    except OSError as error:
        assert error.errno == errno.ENOSPC
        try: ballast.close()
        except OSError: pass
before = open(path, "rb").read()
for method, records in (journal.append, [Closed(ids=["b" * 10_000])]), (journal.compact, [Closed(ids=["c"])] * 900):
    try:
        method(records)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
    else:
        raise AssertionError("it was not full")
    assert open(path, "rb").read() == before
    assert sorted(os.listdir(folder)) == ["ballast", "bob"], os.listdir(folder)
os.unlink(os.path.join(folder, "ballast"))
journal.append([Closed(ids=["b" * 10_000])])
assert len(Journal(path, "bob").load()) == 3
print("recovered")
END
"""
    folder = tmp_path / "mount"
    folder.mkdir()
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(folder), sys.executable]
    if os.getuid() != 0:
        command[1:2] = ["-m", "-r"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.stdout == "recovered\n", done.stderr


def test_compaction_gives_the_same_state_and_appending_goes_on(tmp_path: Path) -> None:
    """The file is replaced by one that folds to what was in memory."""
    path = tmp_path / "bob"
    journal, core = Journal(str(path), "bob"), AgentCore("bob", KEYS)

    def append(*records: Record) -> None:
        journal.append(records)
        for record in records:
            core.apply(record)

    append(*HISTORY)
    for effect in core.open_reply("q", "alice", "x", 1.0, 2.0):
        append(*getattr(effect, "records", ()))
    for effect in core.receive([message(9)], "9-0", 1.0, StreamInfo(1, 9, "9-0")):
        append(*getattr(effect, "records", ()))
    size = path.stat().st_size
    journal.compact(core.snapshot())
    assert path.stat().st_size < size
    append(batch(12))
    append(Opened(entry=core.ledger.entries["q"]))
    journal.close()

    loaded = AgentCore("bob", KEYS)
    for record in Journal(str(path), "bob").load():
        loaded.apply(record)
    assert state(loaded) == state(core)
    assert core.inbox.lost_total > 0
    assert path.stat().st_mode & 0o777 == 0o600


def test_compaction_is_wanted_at_a_mebibyte_and_then_at_the_double(tmp_path: Path) -> None:
    """A state that is itself large is not written again with every record."""
    journal = Journal(str(tmp_path / "bob"), "bob")
    big: Record = Batch(messages=[message(1, "x" * COMPACT_SIZE)])
    journal.append([Closed(ids=[])])
    assert not journal.wants_compaction
    journal.append([big])
    assert journal.wants_compaction
    journal.compact([Header(name="bob"), Snapshot(position=Position()), big])
    assert not journal.wants_compaction
    journal.append([Closed(ids=[])])
    assert not journal.wants_compaction
    journal.append([big, Closed(ids=["x" * 200])])
    assert journal.wants_compaction
    journal.close()
