"""The daemon's log tells of a trouble when it begins and when it ends, whatever number of agents has it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.test_trouble import SmallDisk, configure, needs_root
from tests.helper import Home, Store, a_home, wait_until
from tests.mesh.peer import hosted
from tests.store.servers import a_store, is_up, state

AGENTS = [f"a{k:02}" for k in range(50)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Store]:
    """A store that this test may do everything to."""
    with a_store("redis", tmp_path / "store", "--appendonly", "yes") as store:
        yield store


@pytest.fixture
def here(tmp_path: Path, own: Store) -> Iterator[Home]:
    with a_home(tmp_path / "here", own.url) as made:
        yield made


def register(home: Home, names: list[str]) -> None:
    with home.rpc() as rpc:
        for name in names:
            rpc.call("register", name=name)
    wait_until(lambda: states(home) == {"receiving"}, "all receive")


def states(home: Home) -> set[str]:
    with home.rpc() as rpc:
        return {agent["state"] for agent in rpc.call("status")["agents"]}


@contextlib.contextmanager
def said(home: Home) -> Iterator[Callable[[], list[str]]]:
    """The log's lines from now on, without their times."""
    before = len(home.log().splitlines())
    yield lambda: [line.split(" ", 2)[2] for line in home.log().splitlines()[before:]]


def test_an_outage_is_one_line_at_its_start_and_one_at_its_end(here: Home, own: Store) -> None:
    """50 agents, replies that fall due meanwhile, mail that is sent and read meanwhile: two lines."""
    here.start()
    register(here, AGENTS)
    with here.rpc() as rpc:
        rpc.call("send", target="a01", message="hello", from_="a00")
        for name in AGENTS[:20]:
            rpc.call("send", target="a49", message="?", from_=name, expect_reply=True, within=0.5)
    wait_until(lambda: (hosted(here, "a49") or {})["unread"] == 20, "the questions are there")
    with said(here) as lines:
        own.kill()
        wait_until(lambda: not is_up(here), "the daemon has noticed")
        down_since = time.monotonic()
        here.meshctl("inbox", "a01")  # how far it was read is to be told to the store
        with here.rpc() as rpc:
            for name in AGENTS:
                rpc.send("send", target="a02", message="x", from_=name)
            wait_until(lambda: time.monotonic() - down_since > 3, "the outage lasts")
        own.start()
        wait_until(lambda: is_up(here) and states(here) == {"receiving"}, "all receive again")
        begin, end = lines()
    assert begin.startswith("WARNING meshd.store: store down: no connection to the store")
    assert end.startswith("INFO meshd.store: store up again after ")
    assert own.url in end


def test_a_store_that_is_stopped_is_one_outage(here: Home, own: Store) -> None:
    """SIGSTOP: it does not answer, then it does not let anybody in, then it does: two lines."""
    here.start()
    register(here, AGENTS)
    with said(here) as lines:
        own.pause()
        sending = [here.begin("send", name, "x") for name in AGENTS[:3]]
        for process in sending:
            process.communicate(timeout=20)
            assert process.returncode == 4
        wait_until(lambda: not is_up(here), "the daemon has noticed")
        own.resume()
        wait_until(lambda: is_up(here) and states(here) == {"receiving"}, "all receive again")
        wait_until(lambda: len(lines()) >= 2, "its end is said")
        assert [line.split(":")[0] for line in lines()] == ["WARNING meshd.store", "INFO meshd.store"]


def test_an_embedded_store_that_is_killed_is_one_outage(lone: Home) -> None:
    lone.start()
    register(lone, AGENTS[:10])
    with said(lone) as lines:
        pid = state(lone)["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_up(lone) and state(lone)["pid"] != pid, "it runs again")
        wait_until(lambda: states(lone) == {"receiving"}, "all receive again")
        assert [line.split(":")[1].strip()[:10] for line in lines()] == ["store down", "store up a"]


def test_an_embedded_store_that_does_not_start_is_said_once(lone: Home) -> None:
    """It is tried again every few seconds for as long as it takes; the log has the reason, once."""
    folder = lone.state / "store"
    (folder / "appendonlydir").mkdir(parents=True)
    manifest = folder / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("this is no manifest\n")
    lone.start()
    log = folder / "valkey.log"
    wait_until(lambda: log.exists() and log.read_text().count("manifest") >= 4, "it was tried four times")
    wait_until(lambda: "store down" in lone.log(), "the outage is said")
    assert lone.log().count("manifest") <= 2, lone.log()
    manifest.unlink()
    wait_until(lambda: is_up(lone), "it starts")
    assert len(lone.log().splitlines()) <= 5, lone.log()


def test_a_store_that_refuses_writes_is_two_lines_and_status_says_it(here: Home, own: Store) -> None:
    """Leases cannot be renewed, positions not written, nothing sent; reading goes on."""
    here.start()
    register(here, AGENTS)
    with own.client() as client, said(here) as lines:
        client.config_set("min-replicas-to-write", 1)
        sending = [here.begin("send", "a01", "x", "--from", name) for name in AGENTS[:5]]
        for process in sending:
            process.communicate(timeout=20)
            assert process.returncode == 4
        status = here.run("status")
        assert status.returncode == 4
        assert "refuses writes" in status.stdout
        assert "NOREPLICAS" in state(here)["refuses"]
        client.config_set("min-replicas-to-write", 0)
        here.meshctl("send", "a01", "x")
        assert state(here)["refuses"] is None
        begin, end = lines()
    assert begin.startswith("WARNING meshd.store: the store refuses writes for now: NOREPLICAS")
    assert end.startswith("INFO meshd.store: the store takes writes again after ")


@needs_root
def test_a_full_disk_is_one_line_at_its_start_and_one_at_its_end(home: Home) -> None:
    """Mail for 50 agents that nobody can write down: the log says it once."""
    small = SmallDisk(home)
    small.SIZE = 1 << 20
    small.start(home.state)
    register(home, AGENTS)
    with home.rpc() as rpc, said(home) as lines:
        small.fill()
        for _ in range(2):
            for name in AGENTS:
                rpc.call("send", target=name, message="x" * 4000, from_="alice")
        wait_until(lambda: "trouble" in states(home), "the disk is found full")
        wait_until(lambda: states(home) == {"trouble"}, "every agent has found it full")
        assert len(lines()) == 1
        small.free()
        wait_until(lambda: states(home) == {"receiving"}, "all receive again")
        wait_until(lambda: len(lines()) > 1, "its end is said")
        begin, end = lines()
    full = f"cannot write in {home.state}/agents: No space left on device"
    assert begin.startswith("ERROR meshd.agent: a")
    assert begin.endswith(f": {full}")
    assert end.startswith(f"INFO meshd.agent: over: {full} after ")


def test_the_level_is_the_option_s_and_else_the_configuration_s(home: Home) -> None:
    """`log_level` counts at once when the configuration is read again; an option of the daemon's own wins."""
    configure(home, 'log_level = "warning"\n')
    daemon = home.start()
    assert home.log() == ""
    configure(home, 'log_level = "debug"\n')
    assert home.meshctl("reload") == "configuration read again\n"
    wait_until(lambda: "configuration read again" in home.log(), "the level counts")
    configure(home, 'log_level = "loud"\n')
    assert "log_level" in home.run("reload").stderr
    daemon.terminate()
    daemon.wait()
    before = len(home.log())
    configure(home, 'log_level = "debug"\n')
    home.start("--log-level", "error")
    home.meshctl("reload")
    home.stop()
    assert home.log()[before:] == ""
