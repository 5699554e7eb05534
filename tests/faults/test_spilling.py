"""kill -9 while unread mail goes to the disk and comes back: all is read, in order, what was confirmed never again."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from tests.faults.test_crash import a_moment, report
from tests.helper import Home, Rpc, RpcError, Store, a_home, wait_until
from tests.mesh.peer import hosted

MESSAGES = 8_000  # several times what is kept in memory
PAGE = 250
KILLS = 5  # while it comes, and as many while it is read


def put(store: Store, prefix: str, first: int) -> None:
    """A page of messages, as nobody trims them."""
    with store.client() as client, client.pipeline(transaction=False) as pipeline:
        for n in range(first, first + PAGE):
            fields = {"from": "alice", "msg": "x" * 512, "ts": "1", "id": f"m{n}", "sid": "5e", "n": n + 1}
            pipeline.xadd(f"{prefix}:to_bob", fields)
        pipeline.execute()


class Reading:
    """Reads and confirms until all is read, over every connection that breaks.

    `confirmed`: what was confirmed. `unsure`: what was being confirmed when a connection broke.
    """

    def __init__(self, home: Home) -> None:
        self.confirmed: list[int] = []
        self.unsure: set[int] = set()
        self.wrong: list[str] = []
        self._home = home

    def run(self) -> None:
        while len(self.confirmed) + len(self.unsure) < MESSAGES and not self.wrong:
            try:
                with self._home.rpc() as rpc:
                    while self._page(rpc):
                        pass
            except (OSError, EOFError, ValueError, RpcError):
                continue

    def _page(self, rpc: Rpc) -> bool:
        answer = rpc.call("inbox", name="bob", limit=PAGE, ack="explicit")
        numbers = [int(message["id"][1:]) for message in answer["messages"]]
        if not numbers:
            return len(self.confirmed) + len(self.unsure) < MESSAGES
        if numbers != sorted(numbers) or set(numbers) & set(self.confirmed) or answer["lost"]:
            self.wrong.append(f"{numbers[0]} to {numbers[-1]}, {answer['lost']} lost")
            return False
        self.unsure |= set(numbers)
        rpc.call("confirm", receipt=answer["receipt"])
        self.unsure -= set(numbers)
        self.confirmed += numbers
        return True


def unread(home: Home) -> int:
    found: int = (hosted(home, "bob") or {"unread": -1})["unread"]
    return found


def test_kill_9_while_mail_goes_to_the_disk_and_comes_back(
    tmp_path: Path, mesh_store: Store, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with a_home(tmp_path / "home", mesh_store.url, AGENT_MESH_PREFIX=prefix) as home:
        home.start()
        home.meshctl("register", "bob")
        kills = set(random.sample(range(MESSAGES // PAGE), KILLS))
        for page in range(MESSAGES // PAGE):
            put(mesh_store, prefix, page * PAGE)
            if page in kills:
                a_moment()
                home.kill()
                home.start()
        wait_until(lambda: unread(home) == MESSAGES, "all are received")
        folder = home.state / "agents" / "bob.unread"
        segments = len(list(folder.iterdir()))
        assert segments >= 5
        reading = Reading(home)
        reader = threading.Thread(target=reading.run)
        reader.start()
        for kill in range(KILLS):
            due = MESSAGES * (kill + 1) // (KILLS + 2)
            wait_until(lambda due=due: len(reading.confirmed) >= due or reading.wrong, "some are read")  # type: ignore[misc]
            home.kill()
            home.start()
        reader.join()
        assert reading.wrong == []
        assert set(reading.confirmed) | reading.unsure == set(range(MESSAGES))
        assert reading.confirmed == sorted(reading.confirmed)
        wait_until(lambda: unread(home) == 0, "nothing is unread")
        assert not folder.exists()
        report(capsys, f"{MESSAGES} messages, {segments} segments at once, {2 * KILLS} kills")
