"""Latency and throughput of durable delivery, beside the store's own."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import statistics
import threading
import time
from pathlib import Path

import redis
import redis.asyncio

from meshd.core.names import Keys
from meshd.core.wire import Outgoing
from meshd.store.scripts import sending
from tests.bench.figures import milliseconds, row, scaled
from tests.helper import Home, Rpc, Store, a_home, program, wait_until

ROUNDS = 1000
MESSAGES = 20_000
BATCH = 250
WINDOW = 1000  # messages on their way: a stream keeps about 2,000
PIPELINED = 20_000


def _store(folder: Path) -> Store:
    (folder / "store").mkdir(parents=True)
    options = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
    return Store(program("valkey"), folder / "store", *options)


class _FileWatch:
    """Blocks until a file is written to: inotify(7), which needs no polling."""

    _MODIFY = 0x2

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init()
        assert libc.inotify_add_watch(self.fd, os.fsencode(path), self._MODIFY) >= 0

    def wait(self) -> None:
        os.read(self.fd, 4096)


def latency(folder: Path, share: float) -> None:
    """From a send on the control socket to its line in the notify log, with and without the group's copy.

    The yardsticks, in turn with it: from XADD to the reader's wake, and the sync of one record to the same disk.
    """
    store, rounds = _store(folder), scaled(ROUNDS, share)
    private: list[float] = []
    copied: list[float] = []
    raw: list[float] = []
    syncs: list[float] = []
    with a_home(folder / "home", store.url) as home:
        home.start()
        with home.rpc() as rpc, store.client() as client, open(home.state / "yardstick", "wb", buffering=0) as disk:
            rpc.call("register", name="bob")
            rpc.call("send", target="bob", message="first", private=True)
            wait_until(lambda: home.notify_lines("bob"), "the first line")
            watch = _FileWatch(home.cache / "notify-bob.log")
            woken = threading.Event()
            wakes: list[float] = []
            reader = threading.Thread(target=_read_raw, args=(store, woken, wakes, rounds), daemon=True)
            reader.start()
            for _ in range(rounds):
                for found, how in ((private, True), (copied, False)):
                    started = time.perf_counter()
                    rpc.send("send", target="bob", message="hello", private=how)
                    watch.wait()
                    found.append(time.perf_counter() - started)
                    assert "result" in rpc.read()
                woken.clear()
                started = time.perf_counter()
                client.xadd("raw", {"from": "alice", "msg": "hello", "ts": "1", "id": "x" * 32}, maxlen=2000)
                woken.wait()
                raw.append(wakes[-1] - started)
                started = time.perf_counter()
                disk.write(b"x" * 300)
                os.fdatasync(disk.fileno())
                syncs.append(time.perf_counter() - started)
            reader.join()
    store.close()
    row("raw XADD to XREAD wake, same store", milliseconds(raw))
    row("one sync of the journal's disk", milliseconds(syncs))
    floor = statistics.median(raw) + statistics.median(syncs)
    for what, found, aim in (("private", private, 1.6), ("with the group's copy", copied, 2)):
        row(f"send to line in the notify log (synced journal before it), {what}", milliseconds(found))
        row("ratio to raw wake and sync, at p50", f"{statistics.median(found) / floor:.2f}", f"at most {aim:g}")


def _read_raw(store: Store, woken: threading.Event, wakes: list[float], rounds: int) -> None:
    cursor = b"0"
    with store.client() as client:
        while len(wakes) < rounds:
            reply = client.xread({"raw": cursor}, block=15000)
            wakes.append(time.perf_counter())
            cursor = reply[0][1][-1][0]
            woken.set()


def throughput(folder: Path, share: float) -> None:
    """Messages a second from the socket to the notify logs, synced, with one agent and with fifty."""
    messages = scaled(MESSAGES, share, BATCH)
    for agents, aim in ((1, "10,000/s"), (50, "6,000/s")):
        store = _store(folder / f"store{agents}")
        with a_home(folder / f"home{agents}", store.url, AGENT_MESH_GATE_LIMIT="1000000") as home:
            home.start()
            names = [f"agent{k}" for k in range(agents)]
            with home.rpc() as rpc:
                for name in names:
                    rpc.call("register", name=name)
                started = time.perf_counter()
                sent = 0
                while sent < messages:
                    _send_batch(rpc, names, sent, BATCH)
                    sent += BATCH
                    due = sent - WINDOW
                    wait_until(lambda due=due: _received(rpc) > due, "receivers keep up", 60)  # type: ignore[misc]
                wait_until(lambda: _received(rpc) >= messages, "all messages are received", 60)
                seconds = time.perf_counter() - started
                lost = sum(agent["lost"] for agent in rpc.call("status")["agents"])
            lines = sum(len(home.notify_lines(name)) for name in names)
        store.close()
        what = f"durable delivery, {agents} agent{'s' * (agents > 1)}, {messages} messages"
        row(what, f"{messages / seconds:.0f} messages/s, {lost} lost, {lines} lines kept", aim)


def _send_batch(rpc: Rpc, names: list[str], first: int, count: int) -> None:
    lines = []
    for k in range(first, first + count):
        params = {"target": names[k % len(names)], "message": f"message {k}", "from": "alice", "private": True}
        lines.append(json.dumps({"jsonrpc": "2.0", "id": k, "method": "send", "params": params}).encode())
    rpc.raw(b"\n".join(lines) + b"\n")
    for _ in lines:
        assert "result" in rpc.read()


def _received(rpc: Rpc) -> int:
    return sum(agent["unread"] for agent in rpc.call("status")["agents"])


def pipelined(folder: Path, share: float) -> None:
    """Sends a second over one connection, pipelined, beside the same script through redis-py pipelines."""
    store, sends = _store(folder), scaled(PIPELINED, share, BATCH)
    with a_home(folder / "home", store.url, AGENT_MESH_GATE_LIMIT="1000000") as home:
        home.start()
        ours, raw = [], []
        for _ in range(3):
            raw.append(asyncio.run(_raw_sends(store, sends)))
            ours.append(_our_sends(home, sends))
    store.close()
    row("raw EVALSHA of the send script, redis.asyncio pipelines", f"{max(raw):.0f}/s")
    row("send over one socket connection, pipelined", f"{max(ours):.0f}/s")
    row("ratio", f"{max(ours) / max(raw):.2f}", "at least 0.7")


async def _raw_sends(store: Store, sends: int) -> float:
    keys = Keys("raw")
    client = redis.asyncio.Redis(unix_socket_path=store.socket, protocol=2)
    await client.script_load(sending.SEND.source)
    started = time.perf_counter()
    for first in range(0, sends, BATCH):
        pipeline = client.pipeline(transaction=False)
        for k in range(first, first + BATCH):
            message_id = f"{time.perf_counter_ns():024x}{k:08x}"
            out = Outgoing(message_id, "alice", "bob", f"message {k}", private=True)
            gate = sending.Gate(1_000_000, enforce=False)
            call = sending.send(keys, out, sid="5d", floor=0, gate=gate, digest="0" * 16, ts=1.0)
            pipeline.execute_command(*call.command())
        await pipeline.execute()
    seconds = time.perf_counter() - started
    await client.aclose()
    return sends / seconds


def _our_sends(home: Home, sends: int) -> float:
    with home.rpc() as rpc:
        started = time.perf_counter()
        sender = threading.Thread(target=_write_sends, args=(rpc, sends))
        sender.start()
        for _ in range(sends):
            rpc.line()
        seconds = time.perf_counter() - started
        sender.join()
    return sends / seconds


def _write_sends(rpc: Rpc, sends: int) -> None:
    """The requests are made before, so that the client's JSON is not what is measured."""
    for first in range(0, sends, BATCH):
        lines = [
            b'{"jsonrpc":"2.0","id":%d,"method":"send","params":{"target":"bob","message":"message %d","from":"alice",'
            b'"private":true}}\n' % (k, k)
            for k in range(first, first + BATCH)
        ]
        rpc.raw(b"".join(lines))
