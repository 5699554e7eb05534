"""A tool that sends to a mailbox that is full: it waits a few seconds for room, and then says what there is to do."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.core.wire import MAXLEN
from tests.helper import Store
from tests.shim.client import Client
from tests.shim.conftest import Open


@pytest.fixture
def alice(session: Open, name: str) -> Client:
    return session(name)


@pytest.fixture
def store(mesh_store: Store, peer: str) -> Any:
    """The store's client. The mailbox of `peer`, whom nobody hosts, is full of a 0.1 program's messages."""
    with mesh_store.client() as client:
        with client.pipeline(transaction=False) as pipe:
            for k in range(MAXLEN):
                pipe.xadd(f"mesh:to_{peer}", {"from": "old", "msg": "x", "ts": "1", "id": f"{peer}{k}"})
            pipe.execute()
        yield client
        client.delete(f"mesh:to_{peer}")


def arguments(tool: str, peer: str) -> dict[str, str]:
    return {"peer": peer, "text": "hello"} if tool == "mesh_ack" else {"to": peer, "message": "hello"}


@pytest.mark.parametrize("tool", ["mesh_send", "mesh_ack", "mesh_request"])
def test_it_waits_for_room(tool: str, alice: Client, store: Any, peer: str) -> None:
    waiting = alice.begin(tool, **arguments(tool, peer))
    for _ in range(3):
        alice.ok("mesh_who")
    assert not alice.has(waiting)
    store.xtrim(f"mesh:to_{peer}", maxlen=MAXLEN - 1, approximate=False)
    if tool == "mesh_request":
        alice.until(lambda: alice.ok("mesh_who") and store.xlen(f"mesh:to_{peer}") == MAXLEN, "it is asked")
        alice.notify("notifications/cancelled", {"requestId": waiting})
    else:
        assert not alice.finish(waiting).failed
    assert store.xlen(f"mesh:to_{peer}") == MAXLEN


@pytest.mark.parametrize("tool", ["mesh_send", "mesh_ack"])
def test_it_says_what_there_is_to_do_when_nobody_reads(tool: str, alice: Client, store: Any, peer: str) -> None:
    """Within the time that a client gives to a tool."""
    said = alice.refused(tool, **arguments(tool, peer))
    assert "mailbox is full: 2000 messages wait there" in said
    assert "nobody hosts the name" in said
    assert "Next: Nothing was sent. Try again in a while" in said
