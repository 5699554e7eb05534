"""The notify log and its readers: no line twice, none left out, across crashes, rotations and moved files."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.disk.logcursor import MAX_READ, LogCursor
from meshd.disk.notify import KEPT, ROTATE_SIZE, NotifyLog

LINES = ["📨 alice: “hi” [a]", "📢 bob: ü [b]", "⏰ carol: \\n [c]"]


def say(log: NotifyLog, *lines: str) -> int:
    """Append as the agent does; the offset that its journal would hold."""
    offset = log.offset()
    log.append(lines, offset)
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


def test_an_append_that_failed_half_way_is_continued(tmp_path: Path) -> None:
    """The same call again writes what is missing."""
    path = tmp_path / "log"
    log = NotifyLog(str(path))
    offset = say(log, LINES[0])
    log.append(LINES, offset)
    log.append(LINES, offset)
    log.close()
    assert lines_of(path) == LINES


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
    assert say(log, "b") == 0
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
    assert log.offset() == 0
    log.close()
    log = NotifyLog(str(path))
    log.finish(LINES, 0)
    log.close()
    assert lines_of(path) == LINES


# --- readers ---


def cursor(folder: Path) -> LogCursor:
    return LogCursor(str(folder / "log"), str(folder / "place"))


def rotate(log: NotifyLog) -> None:
    """What happens at a mebibyte, without writing one."""
    log._rotate()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["say", "say", "say", "rotate", "read", "read and die", "new reader"]), max_size=40))
def test_a_reader_gets_every_line_once_across_rotations(history: list[str]) -> None:
    """A watch that ended goes on where it stopped, if no more was rotated than is kept; one that died repeats."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, numbers = NotifyLog(str(folder / "log")), itertools.count()
        reader, got = cursor(folder), list[str]()
        said, rotations = list[str](), 0
        log.offset()
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
