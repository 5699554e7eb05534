"""Replies that are owed: re-pings and the escalation over a real store, and what settles them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshd import settings
from meshd.commands.base import Call, Result
from meshd.commands.messages import Messaging, SendParams, send
from meshd.core import ledger
from meshd.hosting.supervisor import Supervisor
from tests.helper import Home, Store, eventually, wait_until
from tests.mesh.peer import Peer, texts


class Here(Call):
    """A call of a command in this process."""

    async def emit(self, result: Result) -> None:
        raise NotImplementedError


async def test_four_repings_and_one_escalation_and_no_more(
    tmp_path: Path, server: Store, prefix: str, other: Home, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the pauses shortened: at the deadline and after each pause a private re-ping, then one word to the
    watchdog, and the entry is closed; the receiver has one inbox entry and five lines of them all."""
    monkeypatch.setattr(ledger, "PAUSES", (0.1, 0.1, 0.1, 0.2))
    for variable, value in {
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "AGENT_MESH_REDIS_URL": server.url,
        "AGENT_MESH_PREFIX": prefix,
    }.items():
        monkeypatch.setenv(variable, value)
    other.start()
    other.meshctl("register", "bob")
    other.meshctl("register", "watchdog")
    mesh = Supervisor(settings.load())
    stopping = asyncio.Event()
    running = asyncio.create_task(mesh.run(stopping))
    try:
        await mesh.commands.up.wait()
        params = SendParams(target="bob", message="done yet?", sender="alice", expect_reply=True, within=0.2)
        message_id = (await send(Here(mesh.names, mesh.configuration, None), params, mesh.supply(Messaging))).data["id"]
        alice = mesh.agents["alice"].core
        assert list(alice.ledger.entries) == [message_id]
        await eventually(lambda: not alice.ledger.entries, "the entry is closed")
    finally:
        stopping.set()
        await running
    written = peer.entries("to_bob")
    marks = [f"[re-ping {k}/4] done yet?" for k in (1, 2, 3, 4)]
    assert [entry["msg"] for entry in written] == ["done yet?", *marks]
    assert {entry["about"] for entry in written[1:]} == {message_id}
    (escalation,) = peer.entries("to_watchdog")
    assert (escalation["from"], escalation["thread"]) == ("alice", message_id)
    assert "bob" in escalation["msg"]
    assert "done yet?" in escalation["msg"]
    assert [entry["msg"] for entry in peer.entries("group")] == ["done yet?"]
    await eventually(lambda: len(other.notify_lines("bob")) == 5, "five notify lines")
    assert [line[0] for line in other.notify_lines("bob")] == ["📨", *"⏰⏰⏰⏰"]
    assert texts(other, "bob") == ["done yet?"]
    assert len(texts(other, "watchdog")) == 1


def test_a_reping_that_fell_due_while_the_daemon_was_dead_is_sent_once(home: Home, peer: Peer) -> None:
    """The entry survives kill -9; however late, one step is taken, and a second restart adds none."""
    home.start()
    message_id = home.json("send", "old", "when?", "--from", "alice", "--expect-reply", "--within", "0.3")["id"]
    home.kill()
    for _ in range(2):
        home.start()
        wait_until(lambda: len(peer.entries("to_old")) > 1, "the re-ping is sent")
        (entry,) = home.json("pending", "alice")["entries"]
        assert (entry["id"], entry["repings"], entry["state"]) == (message_id, 1, "open")
        assert [entry["msg"] for entry in peer.entries("to_old")] == ["when?", "[re-ping 1/4] when?"]
        home.kill()


def test_only_an_answer_settles(home: Home, peer: Peer) -> None:
    """A plain message of that peer stops the re-pings; a message with `re`, from whomever, and `ack` settle."""
    home.start()
    ids = [home.json("send", "old", f"q{k}", "--from", "alice", "--expect-reply")["id"] for k in range(3)]

    def states() -> dict[str, str]:
        return {entry["text"]: entry["state"] for entry in home.json("pending", "alice")["entries"]}

    assert states() == {"q0": "open", "q1": "open", "q2": "open"}
    peer.send("alice", "not me", sender="stranger")
    peer.send("alice", "an answer", re=ids[0])
    wait_until(lambda: states() == {"q1": "open", "q2": "open"}, "the first is settled")
    peer.send("alice", "busy")
    wait_until(lambda: states() == {"q1": "responded", "q2": "responded"}, "the others are responded")
    home.kill()
    home.start()
    assert states() == {"q1": "responded", "q2": "responded"}
    acked = home.run("ack", "old", "fine", "--from", "alice")
    assert "settled 2 pending entries" in acked.stderr
    assert home.meshctl("pending", "alice") == "(no pending entries)\n"


@pytest.mark.parametrize("unread", [False, True])
def test_an_answer_to_a_reping_is_one_to_what_it_is_about(home: Home, other: Home, peer: Peer, unread: bool) -> None:
    """Whether it stands in the inbox by itself, or only in the notify log because what it is about is unread."""
    home.start()
    other.start()
    other.meshctl("register", "bob")
    message_id = home.json("send", "bob", "please", "--from", "alice", "-e", "--within", "1")["id"]
    if not unread:
        wait_until(lambda: texts(other, "bob") == ["please"], "the message is read")
    line = wait_until(
        lambda: [line for line in other.notify_lines("bob") if line.startswith("⏰")], "the re-ping is there"
    )[0]
    reping = line[-33:-1]
    if unread:
        assert texts(other, "bob") == ["please"]
    other.kill()
    other.start()  # what is remembered of it is on the disk
    other.meshctl("reply", reping, "answer", "--from", "bob")
    assert home.json("inbox", "alice")["messages"][0]["re"] == message_id
    assert home.meshctl("pending", "alice") == "(no pending entries)\n"


def test_an_older_peer_answers_a_reping_by_its_own_id(home: Home, peer: Peer) -> None:
    home.start()
    home.json("send", "old", "please", "--from", "alice", "-e", "--within", "0.3")
    reping = wait_until(lambda: peer.entries("to_old")[1:], "the re-ping is sent")[0]["id"]
    peer.send("alice", "answer", re=reping)
    wait_until(lambda: home.meshctl("pending", "alice") == "(no pending entries)\n", "it is settled")
