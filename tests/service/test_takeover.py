"""A managed daemon where another one runs: the other one is ended if it was started by hand, and nobody else is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from meshd import settings
from meshd.core.clock import Mono
from meshd.disk.files import Lock
from meshd.errors import ConfigError
from meshd.hosting.supervisor import Supervisor
from meshd.receiving.health import STALLED
from meshd.service import takeover
from meshd.system import clock
from tests.helper import Home, eventually

HOLD = "import sys; from meshd.disk.files import Lock; Lock(sys.argv[1]).acquire(); print('held', flush=True); input()"


def test_it_takes_over_agents_and_mail(home: Home) -> None:
    home.start()
    home.meshctl("register", "bob")
    home.meshctl("send", "bob", "hello", "--from", "alice")
    old = home.daemon
    assert old is not None
    home.env["AGENT_MESH_MANAGED_BY"] = "launchd"
    home.start()
    assert old.wait(1) == 0
    assert home.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"
    with home.rpc() as rpc:
        assert rpc.call("hello")["managed_by"] == "launchd"


def test_by_hand_nothing_is_taken_over(home: Home) -> None:
    home.start()
    assert home.daemon is not None
    done = subprocess.run([sys.executable, "-m", "meshd"], env=home.env, capture_output=True, timeout=30)
    assert done.returncode == 0
    assert home.json("status")["pid"] == home.daemon.pid


def test_a_process_that_does_not_hold_the_lock_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number is in the file because the holder lives in a container, where that number is another process's."""
    monkeypatch.setattr(takeover, "PATIENCE", 0.5)
    path = tmp_path / "lock"
    with (
        subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=-1, stdout=-1) as holder,
        subprocess.Popen(["sleep", "60"]) as other,
    ):
        assert holder.stdout is not None
        holder.stdout.readline()
        path.write_text(f"{other.pid}\n")
        with pytest.raises(ConfigError, match="has not ended within") as refused:
            takeover.take_over(Lock(str(path)))
        assert refused.value.hint == f"kill -9 {other.pid}; meshctl service restart"
        assert (holder.poll(), other.poll()) == (None, None)
        path.write_text(f"{holder.pid}\n")
        lock = Lock(str(path))
        takeover.take_over(lock)
        lock.release()
        assert holder.wait(5) == -15
        other.kill()


async def test_the_supervisor_tells_what_has_stopped_working(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose task has ended, and one that does not come round any more; not one that waits for the store."""
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    supervisor, stopping = Supervisor(settings.load()), asyncio.Event()
    running = asyncio.create_task(supervisor.run(stopping))
    try:
        await eventually(supervisor.commands.up.is_set, "the store is up")
        agent = await supervisor.names.host("bob")
        await eventually(lambda: agent.health.caught_up, "it receives")
        assert supervisor.stuck() == []
        agent.health.last_turn = Mono(clock.mono() - STALLED - 1)
        assert supervisor.stuck() == ["agent bob"]
        supervisor.commands.up.clear()
        assert supervisor.stuck() == []
        supervisor.commands.up.set()
        agent.health.last_turn = clock.mono()
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "agent bob"]
        task.cancel()
        await eventually(task.done, "it has ended")
        assert supervisor.stuck() == ["agent bob"]
    finally:
        stopping.set()
        await running
