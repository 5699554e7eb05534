"""A disk that is slow, hangs or fails under one agent: the daemon answers, the others' mail flows, nothing is lost."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.slow_disk import SlowDisk, needs_a_compiler
from tests.helper import Home, Rpc, Store, a_home, wait_until

pytestmark = needs_a_compiler


@pytest.fixture
def rpc() -> Iterator[list[Rpc]]:
    """Connections that a test opened."""
    made: list[Rpc] = []
    yield made
    for connection in made:
        connection.close()


def a_daemon(folder: Path, store: Store, prefix: str, disk: SlowDisk) -> Home:
    home = Home(folder / "home", store.url, AGENT_MESH_PREFIX=prefix, **disk.env)
    home.start()
    for name in ("bob", "carol"):
        home.meshctl("register", name)
    return home


def texts(home: Home, name: str) -> list[str]:
    with home.rpc() as rpc:
        return [message["text"] for message in rpc.call("inbox", name=name)["messages"]]


def send(home: Home, target: str, text: str) -> None:
    with home.rpc() as rpc:
        rpc.call("send", target=target, message=text, from_="alice")


def unread(home: Home, name: str) -> int:
    with home.rpc() as rpc:
        found: int = next(agent["unread"] for agent in rpc.call("status")["agents"] if agent["name"] == name)
    return found


@pytest.fixture
def journal_of_bob(tmp_path: Path) -> str:
    return str(tmp_path / "home" / "*" / "bob.journal")


@pytest.fixture
def hanging(tmp_path: Path, mesh_store: Store, prefix: str, journal_of_bob: str) -> Iterator[tuple[Home, SlowDisk]]:
    disk = SlowDisk(tmp_path / "disk", journal_of_bob, hangs=True, broken=False)
    home = a_daemon(tmp_path, mesh_store, prefix, disk)
    yield home, disk
    disk.mend()
    home.close()


def test_a_sync_that_hangs_holds_up_one_agent_only(hanging: tuple[Home, SlowDisk]) -> None:
    """However long it hangs: everybody is answered and has mail, and its own mail is there once it goes on."""
    home, disk = hanging
    send(home, "bob", "before")
    wait_until(lambda: unread(home, "bob") == 1, "bob's first mail")
    disk.break_()
    for k in range(5):
        send(home, "bob", f"{k}")
    wait_until(lambda: disk.begun() == 1, "bob's sync hangs")
    for k in range(50):
        with home.rpc() as rpc:
            assert rpc.call("hello")["instance"]
        send(home, "carol", f"{k}")
    wait_until(lambda: unread(home, "carol") == 50, "carol has all")
    home.meshctl("register", "dora")
    assert (disk.begun(), disk.ended(), unread(home, "bob")) == (1, 0, 1)
    disk.mend()
    wait_until(lambda: unread(home, "bob") == 6, "bob has all")
    assert texts(home, "bob") == ["before", *map(str, range(5))]


def test_the_daemon_ends_though_a_sync_hangs(hanging: tuple[Home, SlowDisk]) -> None:
    """And says so. What was not written is in the store, and received by the next one."""
    home, disk = hanging
    disk.break_()
    send(home, "bob", "hello")
    wait_until(lambda: disk.begun() == 1, "bob's sync hangs")
    assert home.stop() == 0
    assert disk.ended() == 0
    assert "the disk gave no answer to 1 jobs" in home.log()
    disk.mend()
    home.start()
    wait_until(lambda: unread(home, "bob") == 1, "bob's mail")
    assert texts(home, "bob") == ["hello"]


def test_each_slow_sync_stops_nobody(tmp_path: Path, mesh_store: Store, prefix: str) -> None:
    """Of every file below the home: many calls are answered while a single sync of half a second is under way."""
    disk = SlowDisk(tmp_path / "disk", str(tmp_path / "home" / "*.journal"), ms=500, broken=False)
    home = a_daemon(tmp_path, mesh_store, prefix, disk)
    try:
        disk.break_()
        with home.rpc() as rpc:
            send(home, "bob", "hello")
            wait_until(lambda: disk.begun() > disk.ended(), "a sync is under way")
            before, answered = disk.ended(), 0
            while disk.ended() == before:
                rpc.call("hello")
                answered += 1
        # One alone could have waited for it. A daemon that waits for each sync answers no second one.
        assert answered > 5
        wait_until(lambda: unread(home, "bob") == 1, "bob's mail")
    finally:
        home.close()


def test_a_sync_that_fails_is_said_of_its_agent_and_nothing_is_lost_or_twice(
    tmp_path: Path, mesh_store: Store, prefix: str, journal_of_bob: str
) -> None:
    disk = SlowDisk(tmp_path / "disk", journal_of_bob, error=errno.EIO, broken=False)
    home = a_daemon(tmp_path, mesh_store, prefix, disk)
    try:
        send(home, "bob", "before")
        wait_until(lambda: unread(home, "bob") == 1, "bob's first mail")
        disk.break_()
        for name in ("bob", "carol"):
            send(home, name, "while it fails")
        wait_until(lambda: unread(home, "carol") == 1, "carol's mail")
        wait_until(lambda: "Input/output error" in home.meshctl("status"), "the trouble is said")
        assert unread(home, "bob") == 1
        disk.mend()
        wait_until(lambda: unread(home, "bob") == 2, "bob has both")
        home.kill()
        home.start()
        wait_until(lambda: unread(home, "bob") == 2, "bob has both after a restart")
        assert texts(home, "bob") == ["before", "while it fails"]
    finally:
        home.close()


def test_the_state_folder_is_removed_under_the_daemon(tmp_path: Path, mesh_store: Store, prefix: str) -> None:
    """What was unread and what comes later is in a new journal, which a restart finds."""
    with a_home(tmp_path / "home", mesh_store.url, AGENT_MESH_PREFIX=prefix) as home:
        home.start()
        home.meshctl("register", "bob")
        send(home, "bob", "before")
        wait_until(lambda: unread(home, "bob") == 1, "bob's first mail")
        shutil.rmtree(home.state / "agents")
        send(home, "bob", "after")
        wait_until(lambda: unread(home, "bob") == 2, "bob has both")
        assert "journal was removed" in home.log()
        home.kill()
        home.start()
        wait_until(lambda: unread(home, "bob") == 2, "bob has both after a restart")
        assert texts(home, "bob") == ["before", "after"]
