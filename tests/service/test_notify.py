"""What the daemon says to a manager: the datagrams of sd_notify(3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator

import pytest

from meshd.service import status_line, watchdog
from meshd.service.sd_notify import Notifier, notifier
from tests.helper import Home, eventually, wait_until


class Listening:
    """The manager's end, on a path or in the abstract namespace."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def all(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self._socket.recv(1 << 16).decode())
        return self.heard

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mn"))
        address = f"{folder}/notify" if request.param == "path" else f"@mesh-{secrets.token_hex(8)}"
        yield stack.enter_context(Listening(address))


def test_what_is_told_is_one_datagram_each(listening: Listening) -> None:
    """A line break cannot forge another variable; and what has not changed is not said again."""
    tell = notifier({"NOTIFY_SOCKET": listening.address})
    tell.tell("READY=1")
    tell.status("one\ntwo")
    tell.status("one\ntwo")
    assert listening.all() == ["READY=1", "STATUS=one\\ntwo"]


def test_nobody_is_told_where_nobody_asked() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        assert not notifier(environ).wanted
        notifier(environ).tell("READY=1")


def test_a_manager_that_has_gone_or_does_not_listen_hinders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where systemd-python is installed, too: its own function would wait for ever."""
    with tempfile.TemporaryDirectory(prefix="mn") as folder:
        notifier({"NOTIFY_SOCKET": f"{folder}/none"}).tell("READY=1")
        with Listening(f"{folder}/full") as full:
            monkeypatch.setenv("NOTIFY_SOCKET", full.address)
            tell = notifier()
            started = time.monotonic()
            for _ in range(10_000):
                tell.tell("WATCHDOG=1")
            assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "much"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_the_watchdog_is_fed_three_times_as_often_as_it_asks(environ: dict[str, str], expected: float | None) -> None:
    """And only by the process that it watches: a child inherits the variables."""
    assert watchdog.interval(environ, pid=7) == expected


async def test_the_watchdog_is_not_fed_while_something_is_stuck(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    stuck: list[str] = []
    task = asyncio.create_task(watchdog.feed(Notifier(heard.append), 0.01, lambda: stuck))
    try:
        await eventually(lambda: len(heard) >= 3, "it is fed")
        stuck.append("agent bob")
        await asyncio.sleep(0.02)
        before = len(heard)
        await asyncio.sleep(0.1)
        assert len(heard) == before
        assert [record.getMessage() for record in caplog.records] == [
            "not working any more: agent bob; the manager will start the daemon again"
        ]
        stuck.clear()
        await eventually(lambda: len(heard) > before, "it is fed again")
    finally:
        task.cancel()
    assert set(heard) == {"WATCHDOG=1"}


async def test_status_is_said_when_something_changed_and_a_flood_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_line, "PAUSE", 0.1)
    heard: list[str] = []
    changed, number = asyncio.Event(), 0
    task = asyncio.create_task(status_line.show(Notifier(heard.append), changed, lambda: f"{number} agents", 3600))
    try:
        await eventually(lambda: heard == ["STATUS=0 agents"], "it is said at once")
        for number in range(1, 1000):  # noqa: B007 - read by the lambda
            changed.set()
            await asyncio.sleep(0)
        await eventually(lambda: heard[-1] == "STATUS=999 agents", "the last state is told")
        assert len(heard) <= 4
    finally:
        task.cancel()


def test_a_daemon_under_any_notify_manager(home: Home) -> None:
    """READY once it listens, STATUS as it goes, the watchdog, STOPPING at the end; and only its own process is told."""
    with tempfile.TemporaryDirectory(prefix="mn") as folder, Listening(f"{folder}/notify") as manager:
        home.env |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"}
        home.start()
        assert "READY=1" in manager.all()
        home.meshctl("register", "bob")
        wait_until(lambda: any(s.startswith("STATUS=1 agent; store up (") for s in manager.all()), "STATUS follows")
        count = manager.all().count("WATCHDOG=1")
        wait_until(lambda: manager.all().count("WATCHDOG=1") > count + 3, "the watchdog is fed")
        assert home.stop() == 0
        said = manager.all()
        # The last word, and it leaves no status behind of a daemon that has gone.
        assert said[-1] == "STOPPING=1\nSTATUS="
        assert said.count("READY=1") == said.count("STOPPING=1\nSTATUS=") == 1


def test_a_status_line_that_fails_ends_neither_the_daemon_nor_itself(home: Home) -> None:
    """Messages do not depend on what a manager shows. It is in the log, and tried again."""
    (home.path / "sitecustomize.py").write_text(
        "import os\nfrom meshd.service import status_line\nreal = status_line.line\n"
        "def line(*facts):\n"
        f"    if os.path.exists({str(home.path / 'mended')!r}): return real(*facts)\n"
        "    raise LookupError('no line')\n"
        "status_line.line = line\n"
    )
    path = os.pathsep.join([str(home.path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="mn") as folder, Listening(f"{folder}/notify") as manager:
        home.env |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000", "PYTHONPATH": path}
        daemon = home.start()
        wait_until(lambda: "LookupError: no line" in home.log(), "it is in the log")
        home.meshctl("send", "bob", "hello")
        count = manager.all().count("WATCHDOG=1")
        wait_until(lambda: manager.all().count("WATCHDOG=1") > count + 3, "the watchdog is fed")
        (home.path / "mended").touch()
        wait_until(lambda: any(s.startswith("STATUS=0 agents") for s in manager.all()), "STATUS is told again")
        assert daemon.poll() is None
        assert home.log().count("Traceback") == 1
        assert home.stop() == 0


def test_a_daemon_that_a_command_of_another_service_starts_does_not_speak_for_it(home: Home) -> None:
    """The command's own manager would take READY, STATUS and the watchdog for those of its own service."""
    with tempfile.TemporaryDirectory(prefix="mn") as folder, Listening(f"{folder}/notify") as manager:
        home.env |= {
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": "300000",
            "LISTEN_FDS": "1",
            "AGENT_MESH_MANAGED_BY": "systemd",
        }
        home.meshctl("up")
        with home.rpc() as rpc:
            assert rpc.call("hello")["managed_by"] == "user"
        assert manager.all() == []
