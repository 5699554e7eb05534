"""Readers. One reads as mail comes, by hand-over and confirmation, and sometimes dies between the two."""

from __future__ import annotations

import contextlib
import random
import re
import threading
from typing import Any

from tests.faults.history import Confirmed, Handed, Logged, Recorder, Told
from tests.helper import Home, Rpc, RpcError
from tests.mesh.peer import hosted

_LOST = re.compile(r"^⚠ LOST (\d+) ")
_LINE = re.compile(r"^(?:📨|📢) .*\[([A-Za-z0-9_.-]+)\]$")
_PACE = 0.03  # seconds between two looks of a live reader
_LIMIT = 200  # messages of a live reader's hand-over
_KEPT = 3  # files that the notify log keeps, beside the one that is written


class Reader:
    """Hand-overs at one place, written down. `read` and `confirm` fail as `Rpc.call` does."""

    def __init__(self, place: str, home: Home, name: str, history: Recorder, *, key: str = "id") -> None:
        """`key`: by which field of a message it is known to the history."""
        self.place = place
        self.home = home
        self.name = name
        self.history = history
        self._key = key

    def read(self, rpc: Rpc, limit: int) -> tuple[int, str | None, int]:
        """Have mail handed out, unconfirmed: the number of the take, its receipt, and how many messages it has."""
        return self.given(rpc.call("inbox", name=self.name, limit=limit, ack="explicit"))

    def given(self, result: dict[str, Any]) -> tuple[int, str | None, int]:
        """What an `inbox` with a receipt has answered."""
        take = self.history.next_take()
        ids = [message[self._key] for message in result["messages"]]
        if ids or result["lost"]:
            self.history.write(Handed(self.place, self.name, take, ids, result["lost"]))
        return take, result.get("receipt"), len(ids)

    def confirm(self, rpc: Rpc, take: int, receipt: str) -> None:
        try:
            rpc.call("confirm", receipt=receipt)
        except RpcError as error:
            if error.kind not in ("not_allowed", "full", "usage", "not_found"):
                self.history.write(Confirmed(take, sure=False))
            raise
        except (OSError, EOFError, ValueError):
            self.history.write(Confirmed(take, sure=False))
            raise
        self.history.write(Confirmed(take))

    def drain(self) -> int:
        """Read all that is unread now: how many messages that were. Whatever prevents it ends it without an error."""
        count = 0
        with contextlib.suppress(OSError, EOFError, ValueError, RpcError), self.home.rpc() as rpc:
            while True:
                take, receipt, found = self.read(rpc, 1000)
                if receipt is None:
                    break
                self.confirm(rpc, take, receipt)
                count += found
                if not found:  # but losses
                    break
        return count

    def printed(self, ids: list[str]) -> None:
        """A client that may have been killed has shown these: whether it could confirm that, nobody knows."""
        if ids:
            take = self.history.next_take()
            self.history.write(Handed(self.place, self.name, take, ids), Confirmed(take, sure=False))

    def look_up(self) -> None:
        """Write down what the notify log and `status` say at the end."""
        try:
            lines, is_text = self.home.notify_lines(self.name), True
        except UnicodeDecodeError:  # a scenario has damaged it
            lines, is_text = [], False
        ids = [found[1] for line in lines if (found := _LINE.match(line))]
        lost = sum(int(found[1]) for line in lines if (found := _LOST.match(line)))
        # Lines that could not be written are counted in the log itself.
        whole = not (self.home.cache / f"notify-{self.name}.log.{_KEPT}").exists()
        whole = whole and is_text and not any("left out" in line for line in lines)
        self.history.write(Logged(self.place, self.name, ids, lost, whole))
        agent = hosted(self.home, self.name)
        if agent is not None:
            self.history.write(Told(self.place, self.name, agent["lost"]))


class LiveReader(threading.Thread):
    """Reads until it is stopped. Of `dies` of its hand-overs it never confirms: the client was killed."""

    def __init__(self, reader: Reader, seed: int, dies: float = 0.03) -> None:
        super().__init__(name=f"reader of {reader.name}", daemon=True)
        self.reader = reader
        self._dies = dies
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._killed = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def kill_next(self) -> None:
        """The client that gets the next messages dies before it confirms."""
        self._killed.set()

    def run(self) -> None:
        rpc: Rpc | None = None
        while not self._stopping.is_set():
            try:
                rpc = rpc or self.reader.home.rpc()
                take, receipt, _ = self.reader.read(rpc, _LIMIT)
                if receipt is None:
                    self._stopping.wait(_PACE)
                elif self._is_killed():
                    rpc.close()
                    rpc = None
                else:
                    self.reader.confirm(rpc, take, receipt)
            except RpcError:
                self._stopping.wait(_PACE)
            except (OSError, EOFError, ValueError):
                if rpc is not None:
                    rpc.close()
                rpc = None
                self._stopping.wait(_PACE)
        if rpc is not None:
            rpc.close()

    def _is_killed(self) -> bool:
        if self._killed.is_set():
            self._killed.clear()
            return True
        return self._random.random() < self._dies
