"""A thousand agents on one daemon: what it costs to ask about them, and how soon they receive when a store is back."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from tests.bench.figures import milliseconds, row, scaled
from tests.helper import Home, Rpc, Store, a_home, program, wait_until

AGENTS = 1000
ROUNDS = 100
RESTARTS = 5
PAUSE = 0.005  # seconds between two questions of the watcher


class Watcher(threading.Thread):
    """Asks the daemon for its version again and again: `longest` is how long it once took to answer, in seconds."""

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.longest = 0.0
        self._rpc = home.rpc()
        self._over = threading.Event()

    def run(self) -> None:
        with self._rpc as rpc:
            while not self._over.wait(PAUSE):
                self.longest = max(self.longest, _took(rpc, "hello"))

    def end(self) -> float:
        self._over.set()
        self.join()
        return self.longest


def _took(rpc: Rpc, method: str, **params: object) -> float:
    began = time.perf_counter()
    rpc.call(method, **params)
    return time.perf_counter() - began


def _readers(store: Store) -> int:
    """How many connections wait for entries: asking the store costs the daemon nothing."""
    with store.client() as client:
        return int(client.info("clients")["blocked_clients"])


def growth(folder: Path, share: float) -> None:
    """`who`, `status` and `register` with 1,000 agents, and restarts of the store."""
    agents, rounds = scaled(AGENTS, share), scaled(ROUNDS, share)
    (folder / "store").mkdir()
    store = Store(program("valkey"), folder / "store", "--appendonly", "yes", "--save", "")
    with a_home(folder / "home", store.url) as home, contextlib.ExitStack() as stack:
        stack.callback(store.close)
        home.start()
        rpc = stack.enter_context(home.rpc())
        registering = [_took(rpc, "register", name=f"agent{k}") for k in range(agents)]
        wait_until(lambda: _readers(store) >= agents, "all receive", 120)
        row(f"register, {agents} agents one after another", milliseconds(registering))
        for method, aim in (("who", "5 ms"), ("status", "")):
            row(f"{method} with {agents} agents", milliseconds([_took(rpc, method) for _ in range(rounds)]), aim)
        for _ in range(scaled(RESTARTS, share)):
            store.kill()
            wait_until(lambda: rpc.call("status")["store"]["state"] != "up", "the daemon knows that it is away")
            watcher = Watcher(home)
            watcher.start()
            try:
                store.start()
                began = time.perf_counter()
                wait_until(lambda: _readers(store) >= agents, "all receive again", 120)
                took = time.perf_counter() - began
            finally:
                silent = watcher.end()
            figure = f"{took:.2f} s; longest silence of the socket {silent:.2f} s"
            row(f"a store's restart to {agents} agents receiving", figure, "1 s, 0.2 s")
