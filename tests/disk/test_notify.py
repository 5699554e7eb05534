"""The notify log and its readers: no line twice, none left out, across crashes, rotations and moved files."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.disk.logcursor import MAX_READ, LogCursor
from meshd.disk.notify import KEPT, MOST_WAITING, ROTATE_SIZE, NotifyLog

LINES = ["📨 alice: “hi” [a]", "📢 bob: ü [b]", "⏰ carol: \\n [c]"]


def say(log: NotifyLog, *lines: str) -> int:
    """Append as the agent does; the offset that its journal would hold."""
    offset = log.offset()
    log.put(lines)
    log.flush()
    return offset


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_lines_are_appended(tmp_path: Path) -> None:
    log = NotifyLog(str(tmp_path / "log"))
    say(log, "a", "b")
    say(log, "c")
    log.close()
    assert (tmp_path / "log").read_text() == "a\nb\nc\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_after_a_crash_at_any_byte_the_batch_is_whole_and_nothing_is_repeated(tmp_path: Path) -> None:
    """Also when it came to an end, and when a character was cut in two."""
    path = tmp_path / "log"
    before = "📨 dora: earlier [d]\n".encode()
    whole = "".join(f"{line}\n" for line in LINES).encode()
    for cut in range(len(whole) + 1):
        path.write_bytes(before + whole[:cut])
        log = NotifyLog(str(path))
        log.finish(LINES, len(before))
        assert path.read_bytes() == before + whole
        log.finish(LINES, len(before))  # and a crash right after that
        say(log, "next")
        log.close()
        assert path.read_bytes() == before + whole + b"next\n"


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """The disk takes so many bytes, and then no more."""
    real, left = os.write, count

    def write(fd: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(fd, data[:left])
        left -= done
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


@pytest.fixture
def log(tmp_path: Path) -> Iterator[NotifyLog]:
    made = NotifyLog(str(tmp_path / "log"))
    yield made
    made.close()


WHOLE = "".join(f"{line}\n" for line in LINES).encode()


def fails_to_say(log: NotifyLog, *lines: str) -> None:
    log.put(lines)
    with pytest.raises(OSError, match=r"space|directory|Permission|device"):
        log.flush()
    assert log.waiting


def test_a_disk_that_is_full_at_any_byte_delays_lines_and_loses_none(tmp_path: Path) -> None:
    """What comes meanwhile stands behind them; the journal's offset is where each batch will begin."""
    for room in range(len(WHOLE)):
        path = tmp_path / f"log{room}"
        log = NotifyLog(str(path))
        with room_for(room):
            fails_to_say(log, *LINES)
            assert log.offset() == len(WHOLE)
            fails_to_say(log, "later")
        assert path.read_bytes() == WHOLE[:room]
        log.flush()
        assert not log.waiting
        assert path.read_bytes() == WHOLE + b"later\n"
        assert log.offset() == len(WHOLE) + 6
        log.close()


@pytest.mark.parametrize("take", ["remove", "move", "cut off"])
def test_half_a_line_is_written_whole_where_its_beginning_is_gone(tmp_path: Path, log: NotifyLog, take: str) -> None:
    path = tmp_path / "log"
    with room_for(len(WHOLE) - 5):
        fails_to_say(log, *LINES)
    if take == "remove":
        path.unlink()
    elif take == "move":
        path.rename(tmp_path / "elsewhere")
    else:
        os.truncate(path, 0)
    say(log, "later")
    assert lines_of(path) == [LINES[2], "later"]


def test_what_stands_in_its_place_delays_lines_until_it_is_gone(tmp_path: Path, log: NotifyLog) -> None:
    """A folder, a fifo that nobody reads, a folder of logs that is a file: the next call finds it mended."""
    path = tmp_path / "log"
    said = ["first"]
    say(log, "first")
    for what in ("folder", "fifo", "no folder"):
        path.unlink()
        if what == "folder":
            path.mkdir()
        elif what == "fifo":
            os.mkfifo(path)
        else:
            tmp_path.rmdir()
            tmp_path.touch()
        assert log.offset() == sum(len(line) + 1 for line in said)
        fails_to_say(log, f"{what} 1")
        fails_to_say(log, f"{what} 2")
        if what == "folder":
            path.rmdir()
        else:
            (path if what == "fifo" else tmp_path).unlink()
        log.flush()
        said = [f"{what} 1", f"{what} 2"]
        assert lines_of(path) == said


def test_a_folder_of_logs_that_was_removed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "agent-mesh" / "log"
    log = NotifyLog(str(path))
    say(log, "a")
    shutil.rmtree(tmp_path / "cache")
    say(log, "b")
    log.close()
    assert lines_of(path) == ["b"]
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_of_what_waits_for_too_long_the_log_says_how_much_was_left_out(tmp_path: Path, log: NotifyLog) -> None:
    """Memory is bounded; what came first is there, and what comes after it was mended."""
    path = tmp_path / "log"
    path.mkdir()
    line = "x" * 99
    for _ in range(3 * MOST_WAITING // 1000):
        fails_to_say(log, *[line] * 10)
    assert log.offset() <= MOST_WAITING + 1000
    path.rmdir()
    say(log, "mended")
    *kept, left_out = lines_of(path)
    assert set(kept) == {line}
    assert MOST_WAITING <= 100 * len(kept) <= MOST_WAITING + 1000
    number = 10 * (3 * MOST_WAITING // 1000) - len(kept) + 1
    assert left_out == f"⚠ {number} lines left out: this log could not be written"
    say(log, "after that")
    assert lines_of(path)[-1] == "after that"


def test_a_log_that_cannot_be_rotated_is_written_on(tmp_path: Path, log: NotifyLog) -> None:
    """For there are folders in the places of the older ones."""
    for k in range(1, KEPT + 1):
        (tmp_path / f"log.{k}" / "x").mkdir(parents=True)
    block = "x" * (ROTATE_SIZE // 2)
    for k in range(3):
        say(log, f"{k} {block}")
    assert [line[0] for line in lines_of(tmp_path / "log")] == ["0", "1", "2"]
    shutil.rmtree(tmp_path / "log.1")
    say(log, "after that")
    assert lines_of(tmp_path / "log") == ["after that"]


@pytest.mark.parametrize("what", ["folder", "fifo", "no folder"])
def test_finishing_fails_for_no_reason_and_the_lines_wait(tmp_path: Path, what: str) -> None:
    """An agent is hosted whatever its log is like."""
    path = tmp_path / "folder" / "log"
    if what == "no folder":
        path.parent.touch()
    else:
        path.parent.mkdir()
        (os.mkdir if what == "folder" else os.mkfifo)(path)
    log = NotifyLog(str(path))
    log.finish(LINES, 12)
    assert log.waiting
    if what == "folder":
        path.rmdir()
    else:
        (path.parent if what == "no folder" else path).unlink()
    say(log, "next")
    log.close()
    assert lines_of(path) == [*LINES, "next"]


def test_finishing_on_a_full_disk_is_continued(tmp_path: Path, log: NotifyLog) -> None:
    """At the very byte where the crash and then the disk cut it."""
    path = tmp_path / "log"
    path.write_bytes(b"before\n" + WHOLE[:20])
    with room_for(15):
        log.finish(LINES, 7)
    assert path.read_bytes() == b"before\n" + WHOLE[:35]
    say(log, "next")
    assert path.read_bytes() == b"before\n" + WHOLE + b"next\n"


def test_the_offset_is_known_without_a_look_at_the_disk_once_it_was_loaded(tmp_path: Path, log: NotifyLog) -> None:
    """Also of an agent whose last record is no batch."""
    (tmp_path / "log").write_bytes(WHOLE)
    log.finish([], 0)
    assert log.offset() == len(WHOLE)
    say(log, "next")
    assert (tmp_path / "log").read_bytes() == WHOLE + b"next\n"


def test_a_file_that_is_not_what_it_was_gets_the_batch_again(tmp_path: Path) -> None:
    """Truncated, moved away or written by somebody else: repeated rather than lost."""
    path = tmp_path / "log"
    for content in (b"", b"something else that is longer than the batch" * 9):
        path.write_bytes(content)
        log = NotifyLog(str(path))
        log.finish(LINES, 40)
        log.close()
        assert path.read_text() == content.decode() + "".join(f"{line}\n" for line in LINES)


def test_a_file_that_was_moved_away_is_made_again(tmp_path: Path) -> None:
    """As logrotate does it, between two batches."""
    path = tmp_path / "log"
    log = NotifyLog(str(path))
    say(log, "a")
    path.rename(tmp_path / "elsewhere")
    say(log, "b")
    path.unlink()
    say(log, "c")
    log.close()
    assert lines_of(tmp_path / "elsewhere") == ["a"]
    assert lines_of(path) == ["c"]


def test_rotation_by_rename_keeps_three(tmp_path: Path) -> None:
    """At a mebibyte, between batches; the lines of what is kept are all there, in order."""
    log = NotifyLog(str(tmp_path / "log"))
    block = "x" * (ROTATE_SIZE // 2)
    inode = 0
    for k in range(12):
        say(log, f"{k} {block}")
        if k == 0:
            inode = (tmp_path / "log").stat().st_ino
        if k == 2:
            assert (tmp_path / "log.1").stat().st_ino == inode
    log.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2", "log.3"]
    found = [line.split()[0] for name in ("log.3", "log.2", "log.1", "log") for line in lines_of(tmp_path / name)]
    assert found == [str(k) for k in range(4, 12)]
    assert KEPT == 3


def test_after_a_rotation_and_a_crash_the_batch_begins_the_new_file(tmp_path: Path) -> None:
    """The journal's offset is that of the new file."""
    path = tmp_path / "log"
    path.write_bytes(b"y" * ROTATE_SIZE + b"\n")
    log = NotifyLog(str(path))
    log.finish([], 0)
    assert log.offset() == 0
    log.close()
    log = NotifyLog(str(path))
    log.finish(LINES, 0)  # the crash came before the rotation
    log.close()
    path.write_bytes(path.read_bytes()[:-4])
    log = NotifyLog(str(path))
    log.finish(LINES, 0)  # and after it
    log.close()
    assert lines_of(path) == LINES


# --- readers ---


def cursor(folder: Path) -> LogCursor:
    return LogCursor(str(folder / "log"), str(folder / "place"))


def rotate(log: NotifyLog) -> None:
    """What happens at a mebibyte, without writing one."""
    with log._file.used():
        log._rotate()


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["say", "say", "say", "rotate", "read", "read and die", "new reader"]), max_size=40))
def test_a_reader_gets_every_line_once_across_rotations(history: list[str]) -> None:
    """A watch that ended goes on where it stopped, if no more was rotated than is kept; one that died repeats."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, numbers = NotifyLog(str(folder / "log")), itertools.count()
        reader, got = cursor(folder), list[str]()
        said, rotations = list[str](), 0
        log.flush()
        for what in history:
            if what == "say":
                said.append(f"📨 {next(numbers)}")
                say(log, said[-1])
            elif what == "rotate" and rotations < KEPT:
                rotate(log)
                rotations += 1
            elif what == "read":
                got += reader.read()
                reader.save()
                rotations = 0
                assert got == said
            elif what == "read and die":
                assert got + reader.read() == said
                reader = cursor(folder)
            else:
                reader = cursor(folder)
        assert got + reader.read() == said
        log.close()


def test_a_reader_that_was_away_for_too_long_gets_all_that_is_kept(tmp_path: Path) -> None:
    log, reader = NotifyLog(str(tmp_path / "log")), cursor(tmp_path)
    say(log, "read")
    assert reader.read() == ["read"]
    for k in range(KEPT + 2):
        rotate(log)
        say(log, f"{k}")
    assert reader.read() == ["1", "2", "3", "4"]
    log.close()


def test_half_a_line_is_left_until_it_is_whole(tmp_path: Path) -> None:
    path, reader = tmp_path / "log", cursor(tmp_path)
    path.write_bytes("a\n📨 b".encode()[:-3])
    assert reader.read() == ["a"]
    path.write_bytes("a\n📨 b\n".encode())
    assert reader.read() == ["📨 b"]


def test_a_file_that_was_cut_is_read_from_its_start(tmp_path: Path) -> None:
    """As `: > log` leaves it: a place behind its end would wait for ever."""
    path, reader = tmp_path / "log", cursor(tmp_path)
    path.write_text("a long line\n")
    reader.read()
    path.write_text("new\n")
    assert reader.read() == ["new"]


def test_a_new_reader_begins_at_the_end(tmp_path: Path) -> None:
    """Once: afterwards there is a place, even if there was no file."""
    log, reader = NotifyLog(str(tmp_path / "log")), cursor(tmp_path)
    assert reader.is_new()
    reader.to_end()
    assert not cursor(tmp_path).is_new()
    say(log, "a")
    assert cursor(tmp_path).read() == ["a"]
    reader.to_end()
    assert cursor(tmp_path).read() == []
    say(log, "b")
    assert cursor(tmp_path).read() == ["b"]
    log.close()


def test_a_place_that_cannot_be_read_gives_everything(tmp_path: Path) -> None:
    """Repeated rather than lost."""
    (tmp_path / "place").write_bytes(b"\xffnonsense")
    (tmp_path / "log").write_text("a\n")
    assert cursor(tmp_path).read() == ["a"]


def test_a_large_log_is_read_in_pieces(tmp_path: Path) -> None:
    """Each of bounded size, without a gap."""
    line = "x" * 99
    number = 2 * MAX_READ // 100
    (tmp_path / "log").write_text(f"{line}\n" * number)
    reader, got = cursor(tmp_path), 0
    while lines := reader.read():
        assert len(lines) <= MAX_READ // 100
        assert set(lines) == {line}
        got += len(lines)
    assert got == number


def test_a_large_log_that_was_rotated_is_read_to_its_end_before_the_next(tmp_path: Path) -> None:
    line = "x" * 99
    (tmp_path / "log.1").write_text(f"{line}\n" * (MAX_READ // 100 + 500))
    (tmp_path / "log").write_text("last\n")
    reader, got = cursor(tmp_path), list[str]()
    while lines := reader.read():
        got += lines
    assert got == [line] * (MAX_READ // 100 + 500) + ["last"]
