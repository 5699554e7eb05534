"""By which ids repetitions are recognised: of each daemon's sends the newest, and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from meshd.core.names import Keys
from meshd.core.wire import DEDUPE_MOST, DEDUPE_PAGE, DEDUPE_TTL, Outgoing
from meshd.store.scripts import sending
from tests.helper import Store

SID = "5e"


class Sender:
    """Of one daemon, to a group that keeps little."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self.client: Any = client
        self.keys = Keys(prefix)
        self.remembered = self.keys.remembered(SID)

    def send(self, message_id: str, sid: str = SID) -> str:
        out = Outgoing(message_id, "alice", "*", "hello")
        gate = sending.Gate(0, enforce=False)
        sent = sending.send(self.keys, out, sid=sid, floor=0, gate=gate, digest="d", ts=1.0)
        script = sent.script
        return script.read(self.client.eval(script.source, len(sent.keys), *sent.keys, *sent.args)).verdict

    def full(self) -> None:
        """So many were sent that the next one makes the oldest be forgotten."""
        for first in range(0, DEDUPE_MOST + DEDUPE_PAGE - 1, 1000):
            with self.client.pipeline(transaction=False) as pipe:
                for k in range(first, min(first + 1000, DEDUPE_MOST + DEDUPE_PAGE - 1)):
                    pipe.set(self.keys.dedupe(f"m{k}"), f"1-{k} d {k}", ex=DEDUPE_TTL)
                    pipe.xadd(self.remembered, {"id": f"m{k}"})
                pipe.execute()

    def knows(self, message_id: str) -> bool:
        return bool(self.client.exists(self.keys.dedupe(message_id)))


@pytest.fixture
def sender(server: Store, prefix: str) -> Iterator[Sender]:
    with server.client() as client:
        yield Sender(client, prefix)


def test_the_oldest_are_forgotten_when_there_are_too_many(sender: Sender) -> None:
    sender.full()
    assert sender.send("other", sid="5f") == "sent"
    assert sender.knows("m0")  # the other daemon's sends do not count here
    assert sender.send("new") == "sent"
    assert not sender.knows("m0")
    assert not sender.knows(f"m{DEDUPE_PAGE - 1}")
    assert sender.knows(f"m{DEDUPE_PAGE}")
    assert sender.send("new") == "again"
    assert sender.send(f"m{DEDUPE_PAGE}") == "again"
    assert sender.client.xlen(sender.remembered) == DEDUPE_MOST
    assert 0 < sender.client.ttl(sender.remembered) <= DEDUPE_TTL


def test_what_a_stranger_writes_there_removes_nothing_else(sender: Sender) -> None:
    mailbox = sender.keys.inbox("bob")
    sender.client.xadd(mailbox, {"from": "alice", "msg": "kept"})
    sender.client.xadd(sender.remembered, {mailbox: mailbox, "id": "x"})
    sender.client.xadd(sender.remembered, {"id": ""})
    sender.full()
    assert sender.send("new") == "sent"
    assert sender.client.xlen(mailbox) == 1
    sender.client.delete(sender.remembered)
    sender.client.set(sender.remembered, "no stream")
    assert sender.send("newer") == "sent"
    assert sender.send("newer") == "again"
