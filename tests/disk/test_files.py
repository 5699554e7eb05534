"""Private folders, whole files, one daemon, and who was hosted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from meshd.core.message import Malformed
from meshd.disk import hosted, quarantine
from meshd.disk.files import Lock, private_dir, replace
from meshd.disk.hosted import Hosted
from meshd.errors import AlreadyRunning, ConfigError


def test_a_reader_sees_the_old_file_or_the_new_one_and_nothing_else(tmp_path: Path) -> None:
    """However often it looks while the file is replaced."""
    path = tmp_path / "file"
    versions = [bytes([65 + k]) * (1 + 5000 * k) for k in range(8)]
    replace(str(path), versions[0])
    seen: set[bytes] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(20):
        for version in versions:
            replace(str(path), version)
    done.set()
    reader.join()
    assert seen <= set(versions)
    assert len(seen) > 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_replacement_that_fails_leaves_what_was_and_no_litter(tmp_path: Path) -> None:
    """The write, or the rename."""
    path = tmp_path / "file"
    replace(str(path), b"old")
    script = (
        "import resource, sys; from meshd.disk.files import replace\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: replace(sys.argv[1], b'x' * 100)\n"
        "except OSError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert path.read_bytes() == b"old"
    (tmp_path / "folder" / "x").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        replace(str(tmp_path / "folder"), b"new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


HOLDER = (
    "import sys; from meshd.disk.files import Lock; Lock(sys.argv[1]).acquire(); print('held', flush=True); input()"
)


def test_a_lock_has_one_holder_and_names_it(tmp_path: Path) -> None:
    """In another process as in this one; it is free once the holder is dead, however it died."""
    path = str(tmp_path / "lock")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        lock = Lock(path)
        for _ in range(2):
            with pytest.raises(AlreadyRunning, match=f"pid {holder.pid}") as refused:
                lock.acquire()
            assert refused.value.data["pid"] == holder.pid
        holder.kill()
        holder.wait()
    lock.acquire()
    assert Path(path).read_text() == f"{os.getpid()}\n"
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        Lock(path).acquire()
    lock.release()
    lock.release()
    again = Lock(path)
    again.acquire()
    again.release()
    assert Path(path).exists()


def test_a_shorter_pid_leaves_nothing_of_the_longer(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("1234567890123\n")
    lock = Lock(str(path))
    lock.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_a_lock_whose_holder_said_nothing_is_held_all_the_same(tmp_path: Path) -> None:
    """It was taken, and its pid is not written yet."""
    path = tmp_path / "lock"
    lock = Lock(str(path))
    lock.acquire()
    path.write_text("")
    with pytest.raises(AlreadyRunning, match="unknown") as refused:
        Lock(str(path)).acquire()
    assert refused.value.data["pid"] is None
    lock.release()


def test_a_lock_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lock"):
        Lock(str(tmp_path / "none" / "lock")).acquire()


def test_a_folder_is_made_private(tmp_path: Path) -> None:
    """Whatever the umask; one that was there keeps its mode, which may be somebody's choice."""
    before = os.umask(0)
    try:
        made = private_dir(str(tmp_path / "a" / "b"))
    finally:
        os.umask(before)
    assert os.stat(made).st_mode & 0o777 == 0o700
    os.chmod(made, 0o755)
    private_dir(made)
    assert os.stat(made).st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """They could put a file where ours is expected; with the sticky bit, as in /tmp, they cannot take ours away."""
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError, match=str(tmp_path)) as refused:
        private_dir(str(tmp_path))
    assert "chmod" in refused.value.hint
    tmp_path.chmod(mode | 0o1000)
    assert private_dir(str(tmp_path)) == str(tmp_path)


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=str(tmp_path)) as refused:
        private_dir(str(tmp_path / "file"))
    assert refused.value.hint


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_another_user_s_folder_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        private_dir(str(tmp_path))


def test_hosted_agents_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "hosted.json")
    assert hosted.load(path) == {}
    agents = {"bob": Hosted("builder", 12.5), "eve": Hosted(stealth=True)}
    hosted.save(path, agents)
    assert hosted.load(path) == agents


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"agents":{"bob":5}}', b'{"agents":{},"format":2}', b"\xff"])
def test_a_hosted_file_that_cannot_be_understood_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    """Forgetting all agents would be worse than not starting."""
    path = tmp_path / "hosted.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"hosted\.json"):
        hosted.load(str(path))
    assert path.read_bytes() == content


def test_an_instance_is_stable_and_each_state_folder_has_its_own(tmp_path: Path) -> None:
    one = instance(tmp_path / "one")
    assert instance(tmp_path / "one") == one
    assert instance(tmp_path / "two") != one
    assert len(one) == 32


def instance(home: Path) -> str:
    for folder in ("state", "cache"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    return hosted.instance(str(home / "state" / "instance"), str(home / "cache" / "instance"))


@pytest.mark.parametrize("gone", ["state", "cache"])
def test_an_instance_outlives_either_of_its_folders(tmp_path: Path, gone: str) -> None:
    """Whoever lost its state folder still holds its leases, and finds them; one after the other they may go."""
    one = instance(tmp_path)
    for folder in (gone, "state", "cache", gone):
        shutil.rmtree(tmp_path / folder)
        assert instance(tmp_path) == one
    shutil.rmtree(tmp_path / "state")
    shutil.rmtree(tmp_path / "cache")
    assert instance(tmp_path) != one


def test_the_copy_of_a_home_is_another_instance(tmp_path: Path) -> None:
    """Both would take each other's leases for their own, and both receive. A link to it is no copy."""
    one = instance(tmp_path / "home")
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    copy = instance(tmp_path / "copy")
    assert copy != one
    assert instance(tmp_path / "copy") == copy
    assert instance(tmp_path / "home") == one
    (tmp_path / "link").symlink_to(tmp_path / "home")
    assert instance(tmp_path / "link") == one


def test_a_cache_that_is_shared_gives_nobody_another_s_instance(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    spare = str(tmp_path / "spare")
    made = {name: hosted.instance(str(tmp_path / name / "instance"), spare) for name in ("one", "two")}
    assert made["one"] != made["two"]
    (tmp_path / "one" / "instance").unlink()
    assert hosted.instance(str(tmp_path / "one" / "instance"), spare) != made["two"]


def test_a_seed_of_an_older_version_keeps_its_leases(tmp_path: Path) -> None:
    """It is as it was, and from then on belongs to its folder."""
    (tmp_path / "home" / "state").mkdir(parents=True)
    seed = "5eed" * 8
    (tmp_path / "home" / "state" / "instance").write_text(seed)
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text().strip()
        assert instance(tmp_path / "home") == hashlib.sha256(f"{seed} {machine}".encode()).hexdigest()[:32]
    one = instance(tmp_path / "home")
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    assert instance(tmp_path / "copy") != one
    shutil.rmtree(tmp_path / "home" / "state")
    assert instance(tmp_path / "home") == one


def test_an_instance_needs_no_cache(tmp_path: Path) -> None:
    path, spare = str(tmp_path / "instance"), str(tmp_path / "none" / "instance")
    assert hosted.instance(path, spare) == hosted.instance(path, spare)


def test_quarantine_keeps_the_fields_as_they_came(tmp_path: Path) -> None:
    """One line an entry, readable with any JSON tool; a full file is put aside once."""
    import base64
    import json

    path = tmp_path / "bob.quarantine"
    entry = Malformed("5-0", "no text", (b"from", b"\xff\n"))
    quarantine.keep(str(path), [entry, entry])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2
    assert lines[0]["at"] == "5-0"
    assert [base64.b64decode(field) for field in lines[0]["fields"]] == [b"from", b"\xff\n"]
    path.write_bytes(b"x" * (quarantine.LIMIT + 1))
    quarantine.keep(str(path), [entry])
    assert len(path.read_text().splitlines()) == 1
    assert (tmp_path / "bob.quarantine.1").stat().st_size == quarantine.LIMIT + 1
