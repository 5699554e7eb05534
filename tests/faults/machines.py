"""Two machines on one store, each behind a way of its own, and one history of what both were handed.

How many rounds a fault has: `FAULT_ROUNDS`, a few by default; 20 are the long form.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Running, running
from tests.faults.way import Way
from tests.helper import DEADLINE, Home, Rpc, RpcError, Store, wait_until
from tests.helper.processes import state_of
from tests.mesh.peer import hosted

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "4"))
LONG = ROUNDS >= 20
LEASE = 180  # seconds, as the contract says
SENDER = "alice"  # nobody hosts her
MAY_COME_AGAIN = re.compile(r"\bmay\b.*\b(again|twice)\b", re.DOTALL)
_WINDOW = 100

needs_a_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="a clock that jumps is compiled")


def rounds_take(seconds: float) -> pytest.MarkDecorator:
    """A limit for the whole test, so many seconds for each round; it is there for what hangs alone."""
    return pytest.mark.timeout(int(120 + ROUNDS * seconds))


def clock_library(folder: Path) -> Path:
    """What makes a machine sleep (clock.c), compiled."""
    built = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(built), str(source)], check=True)
    return built


class Machine:
    """A user on a machine: a home, its daemon, and the way to the store. `clock`: the library that lets it sleep."""

    def __init__(self, label: str, path: Path, store: Store, clock: Path | None = None) -> None:
        self.label = label
        self.way = Way(store)
        variables = {}
        if clock is not None:
            self._slept = path.parent / f"{path.name}.slept"
            self._slept.write_text("0")
            self._set = path.parent / f"{path.name}.set"
            variables = {"LD_PRELOAD": str(clock), "CLOCK_SLEPT": str(self._slept), "CLOCK_SET": str(self._set)}
        self.home = Home(path, self.way.url, **variables)

    @property
    def pid(self) -> int:
        assert self.home.daemon is not None
        return self.home.daemon.pid

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(self.pid) == "T", "the daemon is stopped")

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """As in a debugger, or while the lid is down."""
        self.stop()
        try:
            yield
        finally:
            self.go_on()

    def sleep(self, seconds: int) -> None:
        """For its daemon and its commands so much time has passed in a suspend, together with all before."""
        assert "clock.so" in Path(f"/proc/{self.pid}/maps").read_text(), "the daemon has another clock"
        self._slept.write_text(str(int(self._slept.read_text()) + seconds))

    def set_clock(self, seconds: int) -> None:
        """Its wall clock is ahead by so much, or behind, from now on."""
        assert "clock.so" in Path(f"/proc/{self.pid}/maps").read_text(), "the daemon has another clock"
        self._set.write_text(str(seconds))

    def register(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """`meshctl register`, which must succeed."""
        done = self.home.run("register", name, *options)
        assert done.returncode == 0, f"{self.label}: register {name}: exit {done.returncode}: {done.stderr}"
        return done

    def hosts(self, name: str) -> bool:
        return hosted(self.home, name) is not None

    def unread(self, name: str) -> int:
        """How many it has of the name; 0 if it does not host it."""
        return int((hosted(self.home, name) or {"unread": 0})["unread"])

    @contextlib.contextmanager
    def listening(self, name: str, *options: str) -> Iterator[Running]:
        """A `meshctl listen` that waits."""
        with running(self.home, "listen", name, "--timeout", "60", *options) as process:
            wait_until(lambda: (hosted(self.home, name) or {}).get("sessions"), "listen is attached")
            yield process

    def send(self, name: str, texts: Sequence[str]) -> None:
        """Send them in this order. A mailbox that is full for now is asked again, under the same id."""
        with self.home.rpc() as rpc:
            for start in range(0, len(texts), _WINDOW):
                _send_all(rpc, name, texts[start : start + _WINDOW])

    def close(self) -> None:
        self.way.heal()
        self.home.close()
        self.way.close()


def _send_all(rpc: Rpc, name: str, texts: Sequence[str]) -> None:
    left = list(texts)

    def sent() -> bool:
        asked = {rpc.send("send", target=name, message=text, from_=SENDER, id=text): text for text in left}
        answers = [rpc.read() for _ in asked]
        refused = {asked[answer["id"]]: answer["error"] for answer in answers if "error" in answer}
        assert not [error for error in refused.values() if not error["data"]["retryable"]], refused
        # From the first that was refused on, so that a later one does not stay before it.
        left[:] = left[min(map(left.index, refused)) :] if refused else []
        return not left

    wait_until(sent, f"{len(texts)} messages to {name} are sent", deadline=60)


class History:
    """All of one name's mail: what was sent, and who was handed and has confirmed what. Both readers are one.

    A message is known by its text, which is its id, too.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent: list[str] = []
        self.handed: list[tuple[str, str]] = []  # (place, text), in the order of the handing out
        self.read: list[tuple[str, str]] = []  # those that were confirmed
        self.told_lost = 0

    def new(self, count: int) -> list[str]:
        """So many texts that are not sent yet."""
        texts = [f"{self.name}-{len(self.sent) + n:05}" for n in range(count)]
        self.sent += texts
        return texts

    def take(self, machine: Machine, rpc: Rpc, limit: int = 1000) -> tuple[str | None, list[str]]:
        """Hand out there, unconfirmed: receipt and texts. Fails with `RpcError`."""
        return self.given(machine, rpc.call("inbox", name=self.name, limit=limit, ack="explicit"))

    def given(self, machine: Machine, result: dict[str, Any]) -> tuple[str | None, list[str]]:
        """What an `inbox` with a receipt has answered: receipt and texts."""
        texts = [message["text"] for message in result["messages"]]
        self.handed += [(machine.label, text) for text in texts]
        self.told_lost += result["lost"]
        return result.get("receipt"), texts

    def confirm(self, machine: Machine, rpc: Rpc, receipt: str | None, texts: Sequence[str]) -> RpcError | None:
        """The error, if it is answered by one."""
        try:
            rpc.call("confirm", receipt=receipt)
        except RpcError as error:
            return error
        self.read += [(machine.label, text) for text in texts]
        return None

    def drain(self, machine: Machine, limit: int | None = None) -> RpcError | None:
        """Read there all that can be had, or so many. The error that ended it, if one did."""
        left = len(self.sent) + 1 if limit is None else limit
        with machine.home.rpc() as rpc:
            while left > 0:
                try:
                    receipt, texts = self.take(machine, rpc, min(left, 1000))
                except RpcError as error:
                    return error
                if receipt is not None and (refused := self.confirm(machine, rpc, receipt, texts)):
                    return refused
                if not texts:
                    return None
                left -= len(texts)
        return None

    def drain_all(self, *machines: Machine) -> None:
        """Read until all that was sent has been handed out somewhere; what is missing then is `lost`."""

        def complete() -> bool:
            for machine in machines:
                self.drain(machine)
            return not self.lost()

        with contextlib.suppress(AssertionError):
            wait_until(complete, "all was handed out")

    def printed(self, machine: Machine, out: str) -> None:
        """What a command there has printed; a reader has it then."""
        texts = re.findall(rf"\] ({re.escape(self.name)}-\d+)$", out, re.MULTILINE)
        self.handed += [(machine.label, text) for text in texts]
        self.read += [(machine.label, text) for text in texts]

    def twice(self, *, but: Iterable[str] = ()) -> list[str]:
        """The messages that were handed out more than once, anywhere."""
        return _twice(self.handed, but)

    def read_twice(self) -> list[str]:
        return _twice(self.read, ())

    def lost(self) -> list[str]:
        """The messages that were handed out nowhere."""
        there = {text for _, text in self.handed}
        return [text for text in self.sent if text not in there]


def _twice(events: Iterable[tuple[str, str]], but: Iterable[str]) -> list[str]:
    allowed = set(but)
    counted = Counter(text for _, text in events)
    return [text for text, count in counted.items() if count > 1 and text not in allowed]


class Tally:
    """What all rounds of a fault came to. `check` fails at the end, so that one run shows how often."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    def add(self, history: History, *, twice: Sequence[str] | None = None) -> None:
        found = history.twice() if twice is None else twice
        lost = history.lost()
        self.counts["messages"] += len(history.sent)
        self.counts["at two places"] += len(found)
        self.counts["lost"] += len(lost)
        self.counts["told as lost"] += history.told_lost
        if found or lost or history.told_lost:
            self.wrong.append(f"{history.name}: twice {_few(found)}, lost {_few(lost)}, LOST {history.told_lost}")

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def check(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.counts |= Counter()
        zero = ", ".join(f"{self.counts[key]} {key}" for key in ("messages", "at two places", "lost"))
        more = [f"{count} {key}" for key, count in self.counts.items() if key not in zero and count]
        with capsys.disabled():
            print(f"\n    {', '.join([zero, *more])}, {ROUNDS} rounds", end=" ")
        assert not self.wrong, "\n".join(self.wrong)


def _few(texts: Sequence[str]) -> str:
    return f"{len(texts)} ({', '.join(texts[:3])}{', …' if len(texts) > 3 else ''})" if texts else "0"


def answer_of(rpc: Rpc, request: int) -> dict[str, Any]:
    """The answer to a request that was sent before."""
    while (answer := rpc.read()).get("id") != request:
        pass
    return answer


def gone_from(machine: Machine, name: str, deadline: float = DEADLINE) -> None:
    wait_until(lambda: not machine.hosts(name), f"{machine.label} has let {name} go", deadline)
