"""A million unread messages of one agent: what they cost the daemon while they wait, at its start and when read."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.bench.figures import row, scaled
from tests.bench.footprint import resident_of
from tests.bench.growth import Watcher
from tests.helper import Home, Rpc, Store, a_home, program, wait_until

MESSAGES = 1_000_000
TEXT = "x" * 1024
BATCH = 250
WINDOW = 1000  # messages on their way: a stream keeps about 2,000
AT_ONCE = 1000  # messages of one call of `inbox`
FIRST = 10_000  # messages, which are the yardstick for the last ones


def backlog(folder: Path, share: float) -> None:
    """Unread messages of 1 KiB: sent, waited for a start of the daemon, and read."""
    messages = scaled(MESSAGES, share, BATCH)
    (folder / "store").mkdir()
    store = Store(program("valkey"), folder / "store", "--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
    with a_home(folder / "home", store.url, AGENT_MESH_GATE_LIMIT="100000000") as home:
        empty = resident_of(home.start().pid)
        with home.rpc() as rpc:
            rpc.call("register", name="bob")
        _restart(home, 0)
        _receive(home, messages, empty)
        _restart(home, messages)
        _read(home, messages)
    store.close()


def _receive(home: Home, messages: int, empty: float) -> None:
    watcher = Watcher(home)
    watcher.start()
    yardstick = min(messages, FIRST)
    with home.rpc() as rpc:
        began = time.perf_counter()
        _send(rpc, 0, yardstick)
        first = yardstick / (time.perf_counter() - began)
        if messages > 2 * yardstick:
            _send(rpc, yardstick, messages - yardstick)
        began = time.perf_counter()
        _send(rpc, max(yardstick, messages - yardstick), messages)
        last = (messages - max(yardstick, messages - yardstick)) / (time.perf_counter() - began)
        resident = resident_of(rpc.call("status")["pid"])
    silent = watcher.end()
    row(f"the first {yardstick} of {messages} messages of 1 KiB, unread", f"{first:.0f} messages/s")
    if last:
        row("the last of them", f"{last:.0f} messages/s, {last / first:.2f} times as fast")
    row("daemon with none unread", f"{empty / 1024:.1f} MiB")
    row(f"daemon with {messages} unread", f"{resident / 1024:.1f} MiB", "under 200 MiB")
    row("longest silence of the socket while they come", f"{1000 * silent:.0f} ms")
    row("on the disk", f"{_size(home) / (messages * len(TEXT)):.2f} times their texts")


def _send(rpc: Rpc, first: int, end: int) -> None:
    for sent in range(first, end, BATCH):
        lines = [
            json.dumps(
                {
                    "jsonrpc": "2.0",
                    "id": k,
                    "method": "send",
                    "params": {"target": "bob", "message": TEXT, "from": "alice", "private": True},
                }
            ).encode()
            for k in range(sent, min(end, sent + BATCH))
        ]
        rpc.raw(b"\n".join(lines) + b"\n")
        for _ in lines:
            assert "result" in rpc.read()
        wait_until(lambda due=sent + BATCH - WINDOW: _unread(rpc) > due, "the receiver keeps up", 60)  # type: ignore[misc]
    wait_until(lambda: _unread(rpc) >= end, "all are received", 60)


def _unread(rpc: Rpc) -> int:
    found: int = rpc.call("status")["agents"][0]["unread"]
    return found


def _size(home: Home) -> int:
    """Bytes of what is unread."""
    return sum(path.stat().st_size for path in (home.state / "agents").rglob("*") if path.is_file())


def _restart(home: Home, messages: int) -> None:
    home.stop()
    began = time.perf_counter()
    daemon = home.start()
    with home.rpc() as rpc:
        wait_until(lambda: rpc.call("status")["agents"][0]["unread"] == messages, "it is there")
    took = time.perf_counter() - began
    row(f"daemon's start with {messages} unread", f"{took:.2f} s", "under 2 s")
    row("daemon after that", f"{resident_of(daemon.pid) / 1024:.1f} MiB", "under 200 MiB")


def _read(home: Home, messages: int) -> None:
    watcher = Watcher(home)
    watcher.start()
    with home.rpc() as rpc:
        began = time.perf_counter()
        found = 0
        while batch := rpc.call("inbox", name="bob", limit=AT_ONCE)["messages"]:
            found += len(batch)
        took = time.perf_counter() - began
        lost = rpc.call("status")["agents"][0]["lost"]
        resident = resident_of(rpc.call("status")["pid"])
    silent = watcher.end()
    row(
        f"{found} messages read",
        f"{found / took:.0f} messages/s, {took:.1f} s; {messages - found} missing, {lost} lost",
    )
    row("longest silence of the socket meanwhile", f"{1000 * silent:.0f} ms")
    row("daemon after that", f"{resident / 1024:.1f} MiB; {_size(home) >> 10} KiB on the disk")
