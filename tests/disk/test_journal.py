"""The journal: what was synced survives, whatever happens to the rest of the file."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshd.core.agent import AgentCore
from meshd.core.clock import Wall
from meshd.core.inbox import StreamInfo
from meshd.core.message import Message
from meshd.core.records import Batch, Closed, Damaged, Header, Opened, Position, Read, Record, Snapshot
from meshd.disk.journal import COMPACT_SIZE, Journal, JournalGone, line_of, look
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


@settings(max_examples=60)
@given(tail=st.binary(max_size=200))
def test_garbage_behind_the_last_record_is_cut(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    """As a block that was allocated and never written leaves it."""
    path = tmp_path_factory.mktemp("j") / "bob"
    whole = write(path, *HISTORY)
    path.write_bytes(whole + tail)
    assert [record for record in load(path) if not isinstance(record, Damaged)] == HISTORY
    assert path.read_bytes() in (whole, whole + line_of(Damaged()))  # a line that has an end was written


@settings(max_examples=60)
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
    assert got == [*expected[:line], Damaged(new=True), *expected[line + lost :]]
    assert journal.damaged in (1, 2)  # a bit may make a line break of a letter
    (copy,) = folder.glob("bob.damaged-*")
    assert copy.read_bytes() == before
    again = Journal(str(path), "bob")
    assert again.load() == [*expected[:line], Damaged(), *expected[line + lost :]]
    assert again.damaged == 0


@pytest.mark.parametrize(
    "newer",
    [b'{"t":"journal","name":"bob","format":3}', b'{"t":"hologram","x":1}', b'{"t":"read","ids":5}'],
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
    for effect in core.open_reply("q", "alice", "x", Wall(1.0), 2.0):
        append(*getattr(effect, "records", ()))
    for effect in core.receive([message(9)], "9-0", Wall(1.0), StreamInfo(1, 9, "9-0")):
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
    assert core.inbox.losses.total > 0
    assert path.stat().st_mode & 0o777 == 0o600


def grown(path: Path, *records: Record) -> Journal:
    """A journal with these records, over the size from which compaction can pay."""
    journal = Journal(str(path), "bob")
    journal.append([*records, Closed(ids=["x" * COMPACT_SIZE])])
    return journal


def test_compaction_is_due_at_a_mebibyte_and_when_half_of_the_file_is_of_no_use(tmp_path: Path) -> None:
    """A state that is itself large is not written again with every record; one that was read is."""
    journal = Journal(str(tmp_path / "bob"), "bob")
    text = "x" * 2 * COMPACT_SIZE
    big: Record = Batch(messages=[message(1, text)])
    journal.append([Closed(ids=[])])
    assert not journal.compaction_due(0)
    journal.append([big])
    assert not journal.compaction_due(len(text))
    assert journal.compaction_due(0)  # it was read
    journal.append([big, Closed(ids=["x" * 200])])
    assert journal.compaction_due(len(text))
    journal.compact([Header(name="bob"), Snapshot(position=Position()), big], len(text))
    assert not journal.compaction_due(len(text))
    journal.append([Closed(ids=[])])
    assert not journal.compaction_due(len(text))
    assert journal.compaction_due(0)
    journal.compact([Header(name="bob"), Snapshot(position=Position())])
    assert (tmp_path / "bob").stat().st_size < 1000
    assert not journal.compaction_due(0)
    journal.close()


def test_text_that_takes_more_room_on_the_disk_is_not_written_again_and_again(tmp_path: Path) -> None:
    """Control characters take six bytes each: after a compaction of them the next is due at the double, too."""
    journal = Journal(str(tmp_path / "bob"), "bob")
    text = "\x01" * 2 * COMPACT_SIZE
    big: Record = Batch(messages=[message(1, text)])
    journal.append([big])
    assert journal.compaction_due(len(text))  # not known better
    journal.compact([big], len(text))
    journal.append([Closed(ids=["x" * COMPACT_SIZE])])
    assert not journal.compaction_due(len(text))
    assert journal.compaction_due(len(text) // 10)
    journal.close()


# --- disks that fail in the middle of it, and files that are taken away ---


@contextlib.contextmanager
def refused(call: str, error: int = errno.EIO, folders: bool = False) -> Iterator[None]:
    """Every such call of `os` fails, on files or on folders."""
    real = getattr(os, call)

    def refuse(fd: int, *more: int) -> object:
        if stat.S_ISDIR(os.fstat(fd).st_mode) == folders:
            raise OSError(error, os.strerror(error))
        return real(fd, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, refuse)
        yield


def test_a_compaction_whose_last_sync_fails_goes_on_in_the_file_that_is_there(tmp_path: Path) -> None:
    """The new file has the name by then; nothing is written into the old one, which has none."""
    path = tmp_path / "bob"
    journal = grown(path, batch(1))
    with refused("fsync", folders=True):
        with pytest.raises(OSError, match="Input/output"):
            journal.compact([Header(name="bob"), batch(2)])
        assert not journal.compaction_due(0)
        # The name may not survive a power failure yet: what is written behind it would not either.
        with pytest.raises(OSError, match="Input/output"):
            journal.append([batch(3)])
        assert load(path) == [batch(2)]
    journal.append([batch(4)])
    journal.close()
    assert load(path) == [batch(2), batch(4)]
    assert [p.name for p in tmp_path.iterdir()] == ["bob"]


def test_a_compaction_that_fails_before_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "bob"
    journal = grown(path, batch(1))
    size = path.stat().st_size
    with refused("fsync"), pytest.raises(OSError, match="Input/output"):
        journal.compact([Header(name="bob"), batch(2)])
    journal.append([batch(3)])
    journal.close()
    assert path.stat().st_size > size
    assert load(path)[::2] == [batch(1), batch(3)]
    assert [p.name for p in tmp_path.iterdir()] == ["bob"]


def test_what_a_crash_left_of_a_compaction_is_in_nobody_s_way(tmp_path: Path) -> None:
    path = tmp_path / "bob"
    journal = grown(path, batch(1))
    (tmp_path / "bob.new").write_bytes(b"x" * 3 * COMPACT_SIZE)
    journal.compact([Header(name="bob"), batch(2)])
    journal.close()
    assert load(path) == [batch(2)]
    assert [p.name for p in tmp_path.iterdir()] == ["bob"]


def test_the_folder_of_a_new_journal_is_synced_before_the_first_record_counts(tmp_path: Path) -> None:
    """Else a power failure leaves records in a file that has no name."""
    path = tmp_path / "bob"
    journal = Journal(str(path), "bob")
    with refused("fsync", folders=True), pytest.raises(OSError, match="Input/output"):
        journal.append([batch(1)])
    assert path.read_bytes() == b""
    journal.append([batch(1)])
    with refused("fsync", folders=True):  # once only
        journal.append([batch(2)])
    journal.close()
    assert load(path) == [batch(1), batch(2)]


@pytest.mark.parametrize("part", [1, 20, 60])
def test_half_a_line_that_could_not_be_taken_back_swallows_no_record(tmp_path: Path, part: int) -> None:
    """The write fails in the middle, and so does the cutting off. It was acknowledged to nobody: it is no damage."""
    path = tmp_path / "bob"
    journal = Journal(str(path), "bob")
    journal.append([batch(1)])
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if path.stat().st_size > good:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:part])

    for k in range(2):  # the second time the half line of the first is still there
        good = path.stat().st_size
        with pytest.MonkeyPatch.context() as patch, refused("ftruncate", errno.EPERM):
            patch.setattr(os, "write", write)
            with pytest.raises(OSError, match="No space"):
                journal.append([batch(2 + k)])
        assert path.stat().st_size == good + part
    with refused("ftruncate", errno.EPERM):
        journal.append([batch(4)])
        journal.append([batch(5)])
    journal.append([batch(6)])
    journal.close()
    again = Journal(str(path), "bob")
    assert again.load() == [Header(name="bob"), batch(1), batch(4), batch(5), batch(6)]
    assert again.damaged == 0
    assert look(str(path), "bob").damaged == 0


def test_half_a_line_is_cut_off_once_that_is_possible(tmp_path: Path) -> None:
    path = tmp_path / "bob"
    journal = Journal(str(path), "bob")
    journal.append([batch(1)])
    before = path.read_bytes()
    with refused("ftruncate"), refused("fdatasync"), pytest.raises(OSError, match="Input/output"):
        journal.append([batch(2)])
    assert path.read_bytes() > before
    journal.append([batch(3)])
    journal.close()
    assert load(path) == [batch(1), batch(3)]


def remove(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def move_away(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def put_another(path: Path) -> None:
    path.with_suffix(".other").write_bytes(b"")
    path.with_suffix(".other").replace(path)


def put_a_file_for_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.touch()


TAKEN = [remove, remove_folder, move_away, put_another]


@pytest.mark.parametrize("take", [*TAKEN, put_a_file_for_the_folder])
@pytest.mark.parametrize("open_", [True, False], ids=["open", "loaded"])
def test_nothing_is_acknowledged_that_no_restart_finds(
    tmp_path: Path, take: Callable[[Path], None], open_: bool
) -> None:
    """Whether the file was written to before, or only loaded; and however often it is tried."""
    path = tmp_path / "folder" / "bob"
    path.parent.mkdir()
    write(path, batch(1))
    journal = Journal(str(path), "bob")
    journal.load()
    if open_:
        journal.append([batch(2)])
    take(path)
    for _ in range(2):
        with pytest.raises(OSError, match=r"journal was removed|Not a directory"):
            journal.append([batch(3)])
    journal.close()


@pytest.mark.parametrize("take", TAKEN)
def test_a_journal_that_was_removed_goes_on_with_the_whole_state(tmp_path: Path, take: Callable[[Path], None]) -> None:
    """Which whoever has it in memory writes."""
    path = tmp_path / "a" / "b" / "bob"
    path.parent.mkdir(parents=True)
    journal = Journal(str(path), "bob")
    journal.append([batch(1)])
    take(path)
    with pytest.raises(JournalGone) as gone:
        journal.append([batch(2)])
    assert (gone.value.errno, gone.value.filename) == (errno.ENOENT, str(path))
    journal.compact([Header(name="bob"), batch(1)])
    journal.append([batch(2)])
    journal.close()
    assert load(path) == [batch(1), batch(2)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_agent_s_folder_may_be_gone_too(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "bob"
    journal = Journal(str(path), "bob")
    assert journal.load() == []
    with pytest.raises(JournalGone):
        journal.append([batch(1)])
    journal.compact([Header(name="bob")])
    journal.append([batch(1)])
    journal.close()
    assert load(path) == [batch(1)]
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_closing_does_not_wait_for_a_thread_that_hangs_in_the_file(tmp_path: Path) -> None:
    """The thread closes it when it comes back, and touches no file that was opened since under the same number."""
    journal = Journal(str(tmp_path / "bob"), "bob")
    journal.append([batch(1)])
    (fd,) = journal_fds(tmp_path)
    hangs, go_on = threading.Event(), threading.Event()
    real = os.fdatasync

    def hang(fd: int) -> None:
        hangs.set()
        assert go_on.wait(20)
        real(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", hang)
        thread = threading.Thread(target=journal.append, args=([batch(2)],))
        thread.start()
        assert hangs.wait(20)
        journal.close()
        assert journal_fds(tmp_path) == [fd]
        go_on.set()
        thread.join()
    assert journal_fds(tmp_path) == []
    assert load(tmp_path / "bob") == [batch(1), batch(2)]


def journal_fds(folder: Path) -> list[int]:
    """Which of this process's file descriptors lead into the folder."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}").startswith(str(folder)):
                found.append(int(fd))
    return found
