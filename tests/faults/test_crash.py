"""kill -9 at random moments: what was acknowledged is there, once, in order."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.helper import DEADLINE, Home, Rpc, RpcError, a_home, wait_until
from tests.store.servers import a_store, is_up, state

SENDERS = 4
TARGETS = ("bob", "carol")
DAEMON_KILLS = 20
STORE_KILLS = 5
AHEAD = 200  # messages of one sender in a round: what several rounds leave unreceived is less than a stream keeps


class Sender(threading.Thread):
    """Sends one message after another, each until it is acknowledged, always under the same id.

    `acknowledged` holds (target, id) in the order of the sending. It waits at `limit` of them.
    """

    def __init__(self, home: Home, name: str, stopping: threading.Event) -> None:
        super().__init__(name=name)
        self.acknowledged: list[tuple[str, str]] = []
        self.repeats = 0
        self.limit = float("inf")
        self._home = home
        self._stopping = stopping
        self._rpc: Rpc | None = None

    def run(self) -> None:
        number = 0
        try:
            while not self._stopping.is_set():
                if number >= self.limit:
                    self._stopping.wait(0.01)
                    continue
                target = TARGETS[number % len(TARGETS)]
                message_id = f"{self.name}-{number}"
                while not self._send(target, message_id):
                    self.repeats += 1
                    self._stopping.wait(0.01)
                self.acknowledged.append((target, message_id))
                number += 1
                self._stopping.wait(0.001)  # else a fast machine fills more notify logs than are kept
        finally:
            self._hang_up()

    def _send(self, target: str, message_id: str) -> bool:
        """Whether it was acknowledged. Tries until it is, also when it is time to stop: no send stays open."""
        try:
            if self._rpc is None:
                self._rpc = Rpc(self._home.socket)
            self._rpc.call("send", target=target, message=message_id, from_=self.name, id=message_id)
        except RpcError:
            return False
        except (OSError, EOFError, ValueError):
            self._hang_up()
            return False
        return True

    def _hang_up(self) -> None:
        if self._rpc is not None:
            self._rpc.close()
            self._rpc = None


def drain(home: Home, name: str) -> list[dict[str, Any]]:
    """All unread messages, oldest first; read after that."""
    found: list[dict[str, Any]] = []
    with home.rpc() as rpc:
        while messages := rpc.call("inbox", name=name, limit=1000)["messages"]:
            found += messages
    return found


def has_all(receiver: Home, target: str, count: int) -> bool:
    """Whether so many messages are unread, and have their lines."""
    with receiver.rpc() as rpc:
        agents = rpc.call("status")["agents"]
    unread = next(agent["unread"] for agent in agents if agent["name"] == target)
    return unread >= count and len(receiver.notify_lines(target)) >= count


def check(receiver: Home, senders: list[Sender]) -> tuple[int, int]:
    """Every acknowledged id in the inbox and in the notify log, none twice, in order for each sender."""
    total = 0
    for target in TARGETS:
        sent = {s.name: [i for t, i in s.acknowledged if t == target] for s in senders}
        count = sum(map(len, sent.values()))
        total += count

        with contextlib.suppress(AssertionError):  # what is missing is said below
            wait_until(functools.partial(has_all, receiver, target, count), f"{target} has received {count}")
        inbox = [(message["from"], message["id"]) for message in drain(receiver, target)]
        logged = [line.rpartition("[")[2][:-1] for line in receiver.notify_lines(target) if line.startswith("📨")]
        for sender, ids in sent.items():
            assert [i for s, i in inbox if s == sender] == ids, f"the inbox of {target}, from {sender}"
            assert [i for i in logged if i.startswith(f"{sender}-")] == ids, f"the log of {target}, from {sender}"
        assert [line for line in receiver.notify_lines(target) if "LOST" in line] == []
        assert [i for i, n in Counter(logged).items() if n > 1] == []
    return total, sum(sender.repeats for sender in senders)


@contextlib.contextmanager
def sending(home: Home) -> Any:
    stopping = threading.Event()
    senders = [Sender(home, f"s{k}{secrets.token_hex(2)}", stopping) for k in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        yield senders
    finally:
        stopping.set()
        for sender in senders:
            sender.join(3 * DEADLINE)
    assert not [sender for sender in senders if sender.is_alive()]


def a_moment() -> None:
    """A random pause: the moment of a kill is what is tested."""
    time.sleep(random.uniform(0.02, 0.4))


def sent_more(senders: list[Sender], than: int) -> bool:
    return sum(len(sender.acknowledged) for sender in senders) > than


def report(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n    {text}", end=" ")


def test_kill_9_of_the_daemon_and_of_its_store(lone: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty kills of the daemon and five of the embedded store, under four senders: every acknowledged message
    is in the inbox and in the notify log, none twice, each sender's in order."""
    lone.start()
    for name in TARGETS:
        lone.meshctl("register", name)
    rounds = ["daemon"] * DAEMON_KILLS + ["store"] * STORE_KILLS
    random.shuffle(rounds)
    with sending(lone) as senders:
        for victim in rounds:
            before = sum(len(sender.acknowledged) for sender in senders)
            wait_until(functools.partial(sent_more, senders, before), "sends are acknowledged")
            a_moment()
            if victim == "daemon":
                lone.kill()
                lone.start()
            else:
                pid = wait_until(lambda: state(lone)["pid"], "the store's process is known")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_up(lone), "the store is up at the end")
    total, repeats = check(lone, senders)
    report(capsys, f"{total} acknowledged, {repeats} repeats, {DAEMON_KILLS} daemon and {STORE_KILLS} store kills")
    assert total > 1000
    assert repeats > 0


def test_kill_9_of_a_receiver_on_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The senders' daemon stays, the receiver's is killed ten times and the store three times."""
    with (
        a_store("redis", tmp_path / "store", "--appendonly", "yes") as store,
        a_home(tmp_path / "here", store.url) as here,
        a_home(tmp_path / "there", store.url) as there,
    ):
        here.start()
        there.start()
        for name in TARGETS:
            there.meshctl("register", name)
        rounds = ["daemon"] * 10 + ["store"] * 3
        random.shuffle(rounds)
        with sending(here) as senders:
            for victim in rounds:
                before = sum(len(sender.acknowledged) for sender in senders)
                for sender in senders:
                    sender.limit = len(sender.acknowledged) + AHEAD
                wait_until(functools.partial(sent_more, senders, before), "sends are acknowledged")
                a_moment()
                if victim == "daemon":
                    there.kill()
                    there.start()
                else:
                    store.kill()
                    store.start()
        total, repeats = check(there, senders)
        report(capsys, f"{total} acknowledged, {repeats} repeats, 10 receiver and 3 store kills")
        assert total > 1000


def test_kill_9_of_a_client(lone: Home) -> None:
    """A client that dies between hand-over and confirmation: what it held is unread again, the rest is read."""
    lone.start()
    lone.meshctl("register", "bob")
    for n in range(4):
        lone.meshctl("send", "bob", str(n), "--from", "alice")
    reader = Rpc(lone.socket)
    first = reader.call("inbox", name="bob", limit=2, ack="explicit")
    reader.call("confirm", receipt=first["receipt"])
    second = reader.call("inbox", name="bob", limit=1, ack="explicit")
    assert [message["text"] for message in second["messages"]] == ["2"]
    assert [message["text"] for message in drain(lone, "bob")] == ["3"]
    reader.socket.shutdown(socket.SHUT_RDWR)
    reader.close()
    wait_until(lambda: [message["text"] for message in drain(lone, "bob")] == ["2"], "what it held comes again")
