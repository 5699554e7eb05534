"""A store that has lost the end of what it acknowledged gets it again, from whoever sent it."""

from __future__ import annotations

import functools
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults.slow_disk import SlowDisk, needs_a_compiler
from tests.helper import Home, Rpc, Store, a_home, wait_until
from tests.store.servers import a_store, is_up, state

LOG = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")


def send(rpc: Rpc, target: str, texts: list[str], **more: Any) -> list[str]:
    """One after the other; their ids."""
    return [rpc.call("send", target=target, message=text, from_="alice", **more)["id"] for text in texts]


def everything(home: Home, name: str) -> list[str]:
    """All that is unread, read after that."""
    found: list[str] = []
    with home.rpc() as rpc:
        while messages := rpc.call("inbox", name=name, limit=1000)["messages"]:
            found += [message["id"] for message in messages]
    return found


def lose(store: Store, *, back_to: Path) -> None:
    """Kill it, and start it with an older copy of its log."""
    store.kill()
    shutil.rmtree(store.folder / "appendonlydir")
    shutil.copytree(back_to, store.folder / "appendonlydir")
    store.start()


def copy(store: Store, folder: Path) -> Path:
    """Its log as it is now, whole: a rewritten one, so that nothing of it waits to be written."""
    with store.client() as client:
        client.bgrewriteaof()
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the log is whole")
        wait_until(lambda: not client.info("persistence")["aof_rewrite_scheduled"], "the log is whole")
        wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0, "it is written")
    return Path(shutil.copytree(store.folder / "appendonlydir", folder))


def again(home: Home, since: float) -> bool:
    """Whether it has found the store again, later than then."""
    return is_up(home) and state(home)["since"] > since


@needs_a_compiler
@pytest.mark.parametrize("dies", ["store", "store and daemon"])
@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_store_that_answers_before_it_writes_is_killed(
    kind: str, dies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the middle of a sync, again and again, while the target is hosted by another machine, and not at all."""
    disk = SlowDisk(tmp_path / "disk", "*.aof", ms=300)
    for name, value in disk.env.items():
        monkeypatch.setenv(name, value)
    with a_store(kind, tmp_path / "store", *LOG) as store:
        quick = {"LD_PRELOAD": ""}  # the disk of the store alone is slow
        with a_home(tmp_path / "a", store.url, **quick) as home, a_home(tmp_path / "b", store.url, **quick) as other:
            home.start()
            other.start()
            other.meshctl("register", "bob")
            sent: dict[str, list[str]] = {"bob": [], "absent": []}
            for number in range(5):
                with home.rpc() as rpc:
                    met, since = disk.begun(), state(home)["since"]
                    others = itertools.count()
                    while disk.begun() == met:
                        send(rpc, f"other{number}-{next(others) // 1000}", ["x"])
                    for k in range(10):
                        for name, ids in sent.items():
                            ids += send(rpc, name, [f"{number}.{k}"])
                if dies == "store and daemon":
                    home.kill()
                store.kill()
                store.start()
                if dies == "store and daemon":
                    home.start()
                wait_until(functools.partial(again, home, since), "the store is there again")
            wait_until(lambda: is_up(other), "the other one has it, too")
            assert everything(home, "absent") == sent["absent"]
            wait_until(functools.partial(_has, other, "bob", len(sent["bob"])), "all have come")
            assert everything(other, "bob") == sent["bob"]
            for lines in (home.notify_lines("absent"), other.notify_lines("bob")):
                assert not [line for line in lines if "LOST" in line]


def _has(home: Home, name: str, number: int) -> bool:
    return len(home.notify_lines(name)) >= number


@pytest.mark.parametrize("restarted", [False, True])
def test_an_older_copy_of_a_stores_log(restarted: bool, tmp_path: Path) -> None:
    """What came behind it is sent again, and what was read of that does not come again."""
    with (
        a_store("redis", tmp_path / "store", *LOG) as store,
        a_home(tmp_path / "a", store.url) as home,
        a_home(tmp_path / "b", store.url) as other,
    ):
        home.start()
        other.start()
        other.meshctl("register", "bob")
        with home.rpc() as rpc:
            early = send(rpc, "absent", ["0", "1"]) + send(rpc, "bob", ["0", "1"])
            assert len(early) == 4
            saved = copy(store, tmp_path / "saved")
            late, since = send(rpc, "absent", ["2", "3", "4"]), state(home)["since"]
            read = early[2:] + send(rpc, "bob", ["2", "3"])
            wait_until(functools.partial(_has, other, "bob", 4), "they have come")
            assert everything(other, "bob") == read
            wrote = rpc.call("broadcast", message="to all", from_="alice")["id"]
        lose(store, back_to=saved)
        if restarted:
            home.stop()
            home.start()
        wait_until(functools.partial(again, home, since), "the store is there again")
        with home.rpc() as rpc:
            new = send(rpc, "bob", ["new"]) + send(rpc, "absent", ["new"])
        wait_until(lambda: other.notify_lines("bob")[-1].startswith("📨 alice: new"), "the new one has come")
        assert everything(other, "bob") in ([wrote, new[0]], [new[0], wrote])
        assert everything(home, "absent") == [*early[:2], *late, new[1]]
        for lines in (home.notify_lines("absent"), other.notify_lines("bob")):
            assert not [line for line in lines if "LOST" in line]
        assert "had lost 6 messages" in home.log()


def test_counts_go_on_when_the_daemon_is_started_again(tmp_path: Path) -> None:
    """So a receiver sees a gap of before that, too."""
    with a_store("redis", tmp_path / "store", *LOG) as store, a_home(tmp_path / "a", store.url) as home:
        for k in range(3):
            home.start()
            home.meshctl("send", "bob", str(k), "--from", "alice")
            home.meshctl("broadcast", str(k), "--from", "alice")
            home.kill()
        with store.client() as client:
            direct = [entry for _, entry in client.xrange("mesh:to_bob")]
            broadcasts = [entry for _, entry in client.xrange("mesh:group") if entry[b"to"] == b"*"]
        for entries in (direct, broadcasts):
            assert [entry[b"n"] for entry in entries] == [b"1", b"2", b"3"]
            assert len({entry[b"sid"] for entry in entries}) == 1


def test_another_store_gets_nothing_of_what_this_one_had(tmp_path: Path) -> None:
    with (
        a_store("redis", tmp_path / "1", *LOG) as one,
        a_store("redis", tmp_path / "2", *LOG) as two,
        a_home(tmp_path / "a", one.url) as home,
        two.client() as client,
    ):
        home.start()
        home.meshctl("send", "bob", "x", "--from", "alice")
        home.kill()
        home.env["AGENT_MESH_REDIS_URL"] = two.url
        home.start()
        home.meshctl("send", "carol", "y", "--from", "alice")
        assert client.exists("mesh:to_bob", "mesh:to_carol") == 1
