"""What was sent lately: it outlives whoever wrote it, whatever is left of the files."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.disk.sentlog import SentLog

SIZE = 1 << 12
FILES = (".sent-0", ".sent-1")


def opened(path: Path, size: int = SIZE) -> tuple[SentLog, bytes, list[bytes]]:
    log = SentLog(str(path), size)
    return log, *log.open()


@given(steps=st.lists(st.one_of(st.binary(min_size=1, max_size=900), st.none()), max_size=60))
def test_the_newest_records_are_there_in_order_whoever_opens_it_again(steps: list[bytes | None]) -> None:
    """At least as many as fit into one of the two files; `None` opens it anew, as a new daemon does."""
    with tempfile.TemporaryDirectory() as folder:
        path, written = Path(folder) / "x", list[bytes]()
        log, header, found = opened(path)
        assert (header, found) == (b"", [])
        for step in steps:
            if step is None:
                log.close()
                log, header, found = opened(path)
                if written:
                    assert written[: int(header)] + found[-(len(written) - int(header)) :] == written
            else:
                log.append(step, str(len(written)).encode)
                written.append(step)
                found = log.records()
            assert found == written[len(written) - len(found) :]
            fits, size = 0, 0
            while fits < len(written) and (size := size + len(written[-1 - fits]) + 8) < SIZE - 100:
                fits += 1
            assert len(found) >= fits
        log.close()


@given(
    number=st.integers(0, 1),
    change=st.one_of(
        st.tuples(st.integers(0, SIZE - 1), st.binary(min_size=1, max_size=20)),
        st.integers(0, SIZE),
    ),
)
def test_what_was_damaged_or_cut_off_is_left_out(number: int, change: tuple[int, bytes] | int) -> None:
    records = [b"%d" % k * 50 for k in range(40)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        log, _, _ = opened(path)
        for record in records:
            log.append(record, lambda: b"header")
        log.close()
        file = Path(f"{path}{FILES[number]}")
        data = file.read_bytes()
        if isinstance(change, int):
            file.write_bytes(data[:change])
        else:
            at, damage = change
            file.write_bytes((data[:at] + damage + data[at + len(damage) :])[:SIZE])
        log, header, found = opened(path)
        assert header in (b"header", b"")
        assert [record for record in records if record in found] == found
        log.append(b"more", lambda: b"header")
        assert log.records()[-1] == b"more"
        log.close()


def test_what_was_forgotten_does_not_come_back(tmp_path: Path) -> None:
    log, _, _ = opened(tmp_path / "x")
    for _ in range(100):
        log.append(b"before" * 10, lambda: b"before")
    log.forget()
    log.append(b"after", lambda: b"after")
    log.close()
    log, header, found = opened(tmp_path / "x")
    assert (header, found) == (b"after", [b"after"])
    log.close()


def test_it_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys; from meshd.disk.sentlog import SentLog\n"
        f"log = SentLog({str(tmp_path / 'x')!r}); log.open()\n"
        "for k in range(1000): log.append(b'%d' % k, lambda: b'header')\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    log, header, found = opened(tmp_path / "x", 16 << 20)
    assert (header, found) == (b"header", [b"%d" % k for k in range(1000)])
    log.close()


def test_no_memory_for_the_next_file_costs_no_record_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens it again finds what was kept before, and what is kept once there is memory again."""
    log, _, _ = opened(tmp_path / "x", 1 << 20)
    for k in range(40):
        log.append(b"%d " % k * 10_000, lambda: b"header")
    before = log.records()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as full:
        full.setattr("os.posix_fallocate", refuse)
        refused = 0
        while refused < 3:
            try:
                log.append(b"more" * 10_000, lambda: b"header")
            except OSError:
                refused += 1
    kept = log.records()
    assert kept[0] in before
    log.append(b"after", lambda: b"header")
    assert log.records() == [*kept, b"after"]
    log.close()
    log, header, found = opened(tmp_path / "x", 1 << 20)
    assert (header, found) == (b"header", [*kept, b"after"])
    log.close()


def test_its_files_are_private_and_take_the_memory_that_they_use(tmp_path: Path) -> None:
    log = SentLog(str(tmp_path / "x"))
    log.open()
    log.append(b"x" * 1000, lambda: b"header")
    for ending in FILES:
        status = Path(f"{tmp_path / 'x'}{ending}").stat()
        assert status.st_mode & 0o077 == 0
        assert status.st_blocks * 512 <= 2 << 20
    log.close()


@pytest.mark.skipif(sys.platform != "linux", reason="a file system of its own")
def test_a_full_disk_ends_nobody(tmp_path: Path) -> None:
    """It is said, and tried again with the next record."""
    place = tmp_path / "small"
    place.mkdir()
    code = (
        "from meshd.disk.sentlog import SentLog\n"
        f"log = SentLog({str(place / 'x')!r}); log.open()\n"
        "kept = 0\n"
        "for k in range(3000):\n"
        "    try: log.append(b'x' * 1000, lambda: b'header'); kept += 1\n"
        "    except OSError as error: assert error.errno == 28, error; break\n"
        "print(kept)"
    )
    mount = f'mount -t tmpfs -o size=2m none {place} && exec {sys.executable} -c "$CODE"'
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", mount],
        env={"CODE": code, "PATH": "/usr/bin:/bin:/sbin"},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("needs a mount of its own")
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 3000
