"""What an MCP session costs: its start, its memory, a call, and fifty of them at rest."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.figures import milliseconds, quantile, row, scaled
from tests.bench.footprint import cpu_of, resident_of
from tests.helper import Home, a_home, wait_until

STARTS = 15
CALLS = 500
SESSIONS = 50
OBSERVED = 20.0  # seconds
# The least that the SDK offers: what a session would pay if it served itself.
MINIMAL = """
import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

async def list_tools(ctx, params):
    return types.ListToolsResult(tools=[])

async def main():
    server = Server("minimal", on_list_tools=list_tools)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

anyio.run(main)
"""


class Client:
    """A bare client of a stdio server: a line out, a line in."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        info = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        self.ask(0, "initialize", info)
        self._write({"method": "notifications/initialized"})

    def ask(self, number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._write({"id": number, "method": method, "params": params})
        assert self.process.stdout is not None
        while True:
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
            if answer.get("id") == number:
                return answer

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        with self.process:
            pass


def shim(home: Home) -> list[str]:
    """The command of a session, as a client spawns it."""
    return [os.path.join(os.path.dirname(sys.executable), "meshctl"), "mcp"]


def sessions(folder: Path, share: float) -> None:
    with a_home(folder / "home") as home:
        home.start()
        env = {k: v for k, v in home.env.items() if not k.startswith("PYTHON")}
        Client(shim(home), env).close()  # the first one starts the gateway
        _starts(home, env, scaled(STARTS, share))
        _calls(home, env, scaled(CALLS, share))
        _at_rest(home, env, scaled(SESSIONS, share), OBSERVED * share)


def _starts(home: Home, env: dict[str, str], rounds: int) -> None:
    """From spawning to the answer of `initialize`, in turn with a server of the SDK's own."""
    ours: list[float] = []
    theirs: list[float] = []
    our_size = their_size = 0.0
    for _ in range(rounds):
        our_size = _started(shim(home), env, ours)
        their_size = _started([sys.executable, "-c", MINIMAL], env, theirs)
    row("minimal SDK server: start to initialize answered", f"{milliseconds(theirs)}, {their_size:.1f} MiB")
    row("meshctl mcp: start to initialize answered", milliseconds(ours), "under 60 ms")
    row("meshctl mcp: resident", f"{our_size:.1f} MiB", "at most 12 MB")
    row("ratio of the starts, median", f"{statistics.median(ours) / statistics.median(theirs):.3f}")


def _started(command: list[str], env: dict[str, str], times: list[float]) -> float:
    """Notes the seconds of one start; gives the resident MiB after it."""
    started = time.perf_counter()
    client = Client(command, env)
    times.append(time.perf_counter() - started)
    size = resident_of(client.process.pid) / 1024
    client.close()
    return size


def _calls(home: Home, env: dict[str, str], rounds: int) -> None:
    """`mesh_send` through the shim, and `send` on the control socket, in turn."""
    home.meshctl("register", "bob")
    client = Client(shim(home), env)
    tool, raw = [], []
    with home.rpc() as rpc:
        for k in range(1, rounds + 1):
            arguments = {"to": "bob", "message": "hello", "private": True}
            started = time.perf_counter()
            client.ask(k, "tools/call", {"name": "mesh_send", "arguments": arguments})
            tool.append(time.perf_counter() - started)
            started = time.perf_counter()
            rpc.call("send", target="bob", message="hello", private=True)
            raw.append(time.perf_counter() - started)
    client.close()
    row("send on the control socket", milliseconds(raw))
    row("mesh_send through the shim", milliseconds(tool))
    ratio = f"{statistics.median(tool) / statistics.median(raw):.2f} / {quantile(tool, 0.99) / quantile(raw, 0.99):.2f}"
    row("ratio, p50 / p99", ratio)


def _at_rest(home: Home, env: dict[str, str], number: int, observed: float) -> None:
    """All of their memory, and what they and the gateway use while nothing happens."""
    clients = [Client(shim(home), env) for _ in range(number)]
    pids = [client.process.pid for client in clients]
    gateway, daemon = gateway_of(home), home.daemon.pid if home.daemon else 0
    before = {pid: cpu_of(pid) for pid in (*pids, gateway, daemon)}
    time.sleep(observed)  # a benchmark's observation window, not a synchronisation
    used = {pid: (cpu_of(pid) - before[pid]) / observed for pid in before}
    size = sum(map(resident_of, pids)) / 1024
    row(f"{number} shims at rest", f"{size:.0f} MiB, {100 * sum(used[pid] for pid in pids):.2f} % of a core")
    row("the gateway that serves them", f"{resident_of(gateway) / 1024:.0f} MiB, {100 * used[gateway]:.2f} % of a core")
    row("the daemon", f"{resident_of(daemon) / 1024:.0f} MiB, {100 * used[daemon]:.2f} % of a core")
    for client in clients:
        client.close()


def gateway_of(home: Home) -> int:
    """The pid of the daemon's gateway."""
    daemon = home.daemon
    assert daemon is not None

    def found() -> int:
        with open(f"/proc/{daemon.pid}/task/{daemon.pid}/children") as file:
            for pid in file.read().split():
                with open(f"/proc/{pid}/cmdline", "rb") as command:
                    if b"meshd.mcp" in command.read():
                        return int(pid)
        return 0

    return int(wait_until(found, "the gateway runs"))
