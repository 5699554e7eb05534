"""Senders. Each writes down, synced, what it is about to send and then what became of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from tests.faults.history import EVERYBODY, Intends, Outcome, Recorder
from tests.helper import Home, Rpc

WINDOW = 8  # messages of a `Windowed` that are in flight
VOLLEY = 16  # messages that a `Volleys` sends at once
NOTHING_HAPPENED = {
    # Kinds of errors after which the message was certainly not sent.
    *("busy", "denied", "full", "not_allowed", "not_found", "unavailable", "usage"),
    *("store_busy", "store_down", "store_error"),
}
_PAUSE = 0.05  # seconds after a refusal
_CLOSE = 90.0  # seconds in which the last message must be acknowledged


def fate_of(answer: dict[str, Any]) -> tuple[str, str]:
    """Of an answer to a send: its fate, and the error's kind."""
    if "error" not in answer:
        return "sent", ""
    kind = str(answer["error"].get("data", {}).get("kind", "no kind"))
    return ("refused" if kind in NOTHING_HAPPENED else "unknown"), kind


class Writer(threading.Thread):
    """Sends to its targets in turn, so many a second, until `stop`. `private`: with no copies in the group."""

    def __init__(
        self, name: str, home: Home, targets: Sequence[str], history: Recorder, rate: float, *, size: int, private: bool
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.targets = targets
        self.quiet = False  # it is to pause
        self.idle = False  # it pauses, and nothing of it is in flight
        self._home = home
        self._history = history
        self._every = 1 / rate
        self._size = size
        self._private = private
        self._stopping = threading.Event()
        self._seq = 0
        self._next = 0.0
        self._rpc: Rpc | None = None

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        try:
            self._run()
        finally:
            self._hang_up()

    def _run(self) -> None:
        raise NotImplementedError

    def close_lines(self) -> None:
        """Send one last message to each target, over and over until it is acknowledged. For when the thread has ended.

        Raises `AssertionError` if the mesh does not take it for long after all faults are over.
        """
        try:
            for target in self.targets:
                message_id = self._intend(target, closing=True)
                until = time.monotonic() + _CLOSE
                while self._attempt(target, message_id) != "sent":
                    assert time.monotonic() < until, f"{message_id} to {target} is not taken after the faults"
                    time.sleep(_PAUSE)  # the pace of a client that tries again
        finally:
            self._hang_up()

    # --- for those below ---

    def _go_on(self) -> bool:
        """Wait for the next one's time. False when it is time to stop."""
        while self.quiet and not self._stopping.wait(0.02):
            self._land()
            self.idle = True
        self.idle = False
        now = time.monotonic()
        # After an outage it does not catch up: that would be another load.
        self._next = max(self._next + self._every, now - self._every)
        return not self._stopping.wait(max(0.0, self._next - now))

    def _land(self) -> None:
        """Have nothing in flight."""

    def _intend(self, target: str, *, closing: bool = False) -> str:
        message_id = f"{self.name}-{self._seq}"
        self._history.write(Intends(self.name, target, message_id, self._seq, closing))
        self._seq += 1
        return message_id

    def _attempt(self, target: str, message_id: str) -> str:
        """Ask once, and write down how it ended: its fate."""
        asked = False
        try:
            rpc = self._connect()
            asked = True
            self._ask(rpc, target, message_id)
            fate, why = fate_of(rpc.read())
        except (OSError, EOFError, ValueError) as error:
            self._hang_up()
            fate, why = ("unknown" if asked else "refused"), type(error).__name__
        self._history.write(Outcome(message_id, fate, why))
        return fate

    def _connect(self) -> Rpc:
        if self._rpc is None:
            self._rpc = Rpc(self._home.socket)
        return self._rpc

    def _ask(self, rpc: Rpc, target: str, message_id: str) -> int:
        text = message_id.ljust(self._size, ".")
        if target == EVERYBODY:
            return rpc.send("broadcast", message=text, from_=self.name, id=message_id)
        return rpc.send("send", target=target, message=text, from_=self.name, id=message_id, private=self._private)

    def _hang_up(self) -> None:
        if self._rpc is not None:
            self._rpc.close()
            self._rpc = None


class OneByOne(Writer):
    """Each message until it is acknowledged, always under the same id."""

    def _run(self) -> None:
        while self._go_on():
            target = self.targets[self._seq % len(self.targets)]
            message_id = self._intend(target)
            while self._attempt(target, message_id) != "sent":
                if self._stopping.wait(_PAUSE):
                    return
                if self.quiet:  # it may be for ever that its daemon is not there
                    break


class Windowed(Writer):
    """Keeps `WINDOW` in flight, and sends each once: what has no answer stays unknown."""

    def _run(self) -> None:
        self._flying: dict[int, str] = {}
        while self._go_on():
            try:
                rpc = self._connect()
                target = self.targets[self._seq % len(self.targets)]
                message_id = self._intend(target)
                self._flying[self._ask(rpc, target, message_id)] = message_id
                # An answer waits in the socket until the window is full: in an outage all of it is in flight.
                while len(self._flying) >= WINDOW:
                    self._answered(rpc)
            except (OSError, EOFError, ValueError) as error:
                self._give_up(type(error).__name__)
                self._stopping.wait(_PAUSE)
        self._give_up("stopped")

    def _land(self) -> None:
        self._give_up("paused")

    def _answered(self, rpc: Rpc) -> None:
        answer = rpc.read()
        message_id = self._flying.pop(answer["id"], None)
        if message_id is not None:
            self._history.write(Outcome(message_id, *fate_of(answer)))

    def _give_up(self, why: str) -> None:
        """Read what was answered before the connection broke; of the rest nobody will hear again."""
        with contextlib.suppress(OSError, EOFError, ValueError):
            while self._flying and self._rpc is not None:
                self._answered(self._rpc)
        self._hang_up()
        if self._flying:
            self._history.write(*(Outcome(one, "unknown", why) for one in self._flying.values()))
        self._flying.clear()


class _Gathered(Rpc):
    """Keeps what is asked until it is sent as one piece."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._asked: list[bytes] = []

    def raw(self, data: bytes) -> None:
        self._asked.append(data)

    def send_all(self) -> None:
        data, self._asked = b"".join(self._asked), []
        super().raw(data)


class Volleys(Writer):
    """`VOLLEY` messages as one piece when it is told to, each once: what happens then, happens to all of them."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._wanted = threading.Event()
        self._written = threading.Event()
        self.idle = True

    def fire(self) -> None:
        """Send a volley, unless the last one still waits for its answers. Returns when it is written."""
        if self.idle:
            self.idle = False
            self._written.clear()
            self._wanted.set()
            self._written.wait(_PAUSE * 100)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._wanted.wait(0.1):
                self._wanted.clear()
                self._volley(self.targets[self._seq // VOLLEY % len(self.targets)])
                self.idle = True

    def _volley(self, target: str) -> None:
        ids = [f"{self.name}-{self._seq + n}" for n in range(VOLLEY)]
        self._history.write(*(Intends(self.name, target, one, self._seq + n) for n, one in enumerate(ids)))
        self._seq += VOLLEY
        flying: dict[int, str] = {}
        ended: list[Outcome] = []
        try:
            rpc = _Gathered(self._home.socket)
        except OSError as error:
            self._written.set()
            self._history.write(*(Outcome(one, "refused", type(error).__name__) for one in ids))
            return
        with rpc, contextlib.suppress(OSError, EOFError, ValueError):
            flying = {self._ask(rpc, target, one): one for one in ids}
            try:
                rpc.send_all()
            finally:
                self._written.set()
            while flying:
                answer = rpc.read()
                ended.append(Outcome(flying.pop(answer["id"]), *fate_of(answer)))
        self._history.write(*ended, *(Outcome(one, "unknown", "no answer") for one in flying.values()))
