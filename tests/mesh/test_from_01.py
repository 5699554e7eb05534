"""Moving from 0.1: the files that it leaves and the store that its programs filled, and then our daemon."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.helper import Home, wait_until
from tests.mesh.peer import Peer, hosted, receiving, texts, wait_for_texts

HOUR = 3600.0
MINUTE = 60.0


class Old:
    """A machine on which 0.1 runs: what it writes in the store, as `Peer` does, and what it leaves in its folder."""

    def __init__(self, home: Home, peer: Peer) -> None:
        self.folder = home.path / ".cache" / "agent-mesh"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.peer = peer

    def send(
        self,
        target: str,
        text: str,
        sender: str,
        *,
        private: bool = False,
        ts: float | None = None,
        at: str = "*",
        message_id: str = "",
        **more: str,
    ) -> str:
        """A message of a 0.1 program, with its copy in the group; its entry id. `ts`: what the sender's clock says."""
        fields = {"from": sender, "msg": text, "ts": str(time.time() if ts is None else ts), **more}
        fields["id"] = message_id or str(uuid.uuid4())
        entry: bytes = self.peer.store.xadd(self.peer.key(f"to_{target}"), fields, id=at, maxlen=2000, approximate=True)
        if not private:
            self.peer.add("group", {**fields, "to": target})
        return entry.decode()

    def broadcast(self, text: str, sender: str) -> str:
        fields = {"from": sender, "msg": text, "ts": str(time.time()), "id": str(uuid.uuid4()), "to": "*"}
        return self.peer.add("group", dict(fields))

    def ask(
        self,
        sender: str,
        target: str,
        text: str,
        *,
        sent: float | None = None,
        within: float = HOUR,
        tries: int = 0,
        last: float | None = None,
        escalated: bool = False,
        stored: bool = True,
        at: str = "*",
    ) -> str:
        """`send --expect-reply`: the entry in the sender's ledger and the message; its id.

        `last`: when it was re-pinged last. Not `stored`: the store has dropped the message since.
        """
        message_id, sent = str(uuid.uuid4()), time.time() if sent is None else sent
        entry = {
            "id": message_id,
            "dir": "out",
            "peer": target,
            "msg_id": message_id,
            "sent_ts": sent if last is None else last,
            "deadline_ts": sent + within,
            "tries": tries,
            "note": text[:200],
            "escalated": escalated,
        }
        with open(self.folder / f"pending-{sender}.jsonl", "a") as ledger:
            ledger.write(json.dumps(entry) + "\n")
        if stored:
            deadline = str(sent + within)
            self.send(target, text, sender, at=at, message_id=message_id, expect_reply="1", deadline=deadline)
        return message_id

    def has_read(self, name: str, at: str) -> None:
        (self.folder / f"{name}.id").write_text(at)

    def has_read_group(self, name: str, at: str) -> None:
        (self.folder / f"{name}_group.id").write_text(at)

    def files(self) -> set[str]:
        return set(os.listdir(self.folder))


@pytest.fixture
def old(home: Home, peer: Peer) -> Old:
    return Old(home, peer)


def move(home: Home, name: str) -> None:
    """Start our daemon and register, until all that the store has is received."""
    home.start()
    home.meshctl("register", name)
    wait_until(lambda: receiving(home, name), f"{name} is receiving")


def entries(home: Home, name: str) -> dict[str, dict[str, Any]]:
    return {entry["text"]: entry for entry in home.json("pending", name)["entries"]}


def states(home: Home, name: str) -> dict[str, str]:
    return {text: entry["state"] for text, entry in entries(home, name).items()}


def test_alice_moves(home: Home, peer: Peer, old: Old) -> None:
    """What 0.1 had read stays read and what it had not is unread, private and from the group; what is owed goes on."""
    began = time.time()
    old.broadcast("read by all", "bob")
    read_group = old.broadcast("read by all, too", "bob")
    old.send("alice", "read", "bob", ts=began + 5 * HOUR)
    old.has_read("alice", old.send("alice", "read, too", "carol"))
    old.has_read_group("alice", read_group)
    # Mail that 0.1 had not read when alice asked. What its senders' clocks say means nothing.
    old.send("alice", "before you asked", "bob", ts=began + 5 * HOUR)
    old.send("alice", "before you asked, too", "carol", ts=0, private=True)
    old.broadcast("not read", "carol")
    long = "which branch? " + "x" * 300
    ids = {
        "bob": old.ask("alice", "bob", long, within=2 * HOUR),
        "carol": old.ask("alice", "carol", "and you?"),
        "dave": old.ask("alice", "dave", "anybody?", sent=began - HOUR, within=120, tries=5, escalated=True),
        "erin": old.ask("alice", "erin", "ready?", sent=began - 200, within=120, tries=2, last=began - 10),
    }
    asked = _milliseconds(peer)
    wait_until(lambda: _milliseconds(peer) > asked, "what comes now has another place than the questions")
    old.send("alice", "I am here", "carol", ts=began - 5 * HOUR)
    move(home, "alice")

    unread = {"before you asked", "before you asked, too", "not read", "I am here"}
    wait_for_texts(home, "alice", *unread)
    assert set(texts(home, "alice", peek=True)) == unread
    found = entries(home, "alice")
    assert {text: entry["id"] for text, entry in found.items()} == {
        long[:200]: ids["bob"],
        "and you?": ids["carol"],
        "anybody?": ids["dave"],
        "ready?": ids["erin"],
    }
    states_then = {long[:200]: "open", "and you?": "responded", "anybody?": "escalated", "ready?": "open"}
    assert states(home, "alice") == states_then
    bob, erin, dave = found[long[:200]], found["ready?"], found["anybody?"]
    assert (bob["repings"], bob["next"]) == (0, bob["deadline"])
    assert bob["deadline"] == pytest.approx(began + 2 * HOUR, abs=MINUTE)
    assert (erin["repings"], erin["next"]) == (2, pytest.approx(began - 10 + 60))
    assert dave["next"] is None
    printed = home.meshctl("pending", "alice")
    assert all(word in printed for word in ("escalated", "responded", "open", "2/4", "4/4", "which branch?"))
    assert not old.files() & {"alice.id", "alice_group.id", "pending-alice.jsonl"}
    assert {"alice.id.taken-over", "alice_group.id.taken-over", "pending-alice.jsonl.taken-over"} <= old.files()
    assert not [line for line in home.notify_lines("alice") if line.startswith("⚠")]

    home.kill()
    move(home, "alice")
    assert states(home, "alice") == states_then
    assert set(texts(home, "alice")) == unread
    assert texts(home, "alice") == []

    old.send("alice", "on it", "bob", ts=0)  # of a clock that is decades behind
    wait_until(lambda: states(home, "alice")[long[:200]] == "responded", "a newer message is a sign of life")
    old.send("alice", "it is me", "dave", re=ids["dave"])
    wait_until(lambda: "anybody?" not in states(home, "alice"), "an answer settles what was escalated")
    home.meshctl("ack", "erin", "never mind", "--from", "alice")
    home.kill()
    move(home, "alice")
    assert set(states(home, "alice")) == {long[:200], "and you?"}


def _milliseconds(peer: Peer) -> int:
    """The store's clock."""
    seconds, micro = peer.store.time()
    return int(seconds) * 1000 + int(micro) // 1000


def test_an_agent_that_0_1_did_not_know_has_all_of_its_mail(home: Home, peer: Peer, old: Old) -> None:
    """And broadcasts from now on."""
    old.broadcast("before", "bob")
    old.send("alice", "first", "bob")
    move(home, "alice")
    assert texts(home, "alice", peek=True) == ["first"]
    old.broadcast("now", "bob")
    wait_until(lambda: texts(home, "alice", peek=True) == ["first", "now"], "a broadcast comes")


def test_what_is_overdue_is_asked_again_where_0_1_stopped(home: Home, peer: Peer, old: Old) -> None:
    """One step, with its number and 0.1's text, and the next one after its pause; then no more than that."""
    began = time.time()
    message_id = old.ask("alice", "bob", "ready?", sent=began - 200, within=60, tries=1, last=began - 100)
    last = old.ask("alice", "carol", "and you?", sent=began - HOUR, within=60, tries=4, last=began - 2000)
    move(home, "alice")
    wait_until(lambda: len(peer.entries("to_bob")) == 2, "it is asked again")
    again = peer.entries("to_bob")[1]
    assert (again["msg"], again["about"], again["from"]) == ("[re-ping 2/4] ready?", message_id, "alice")
    escalation = peer.next("to_watchdog")
    assert (escalation["thread"], escalation["from"]) == (last, "alice")
    wait_until(lambda: "and you?" not in entries(home, "alice"), "the escalation is sent")
    entry = wait_until(lambda: (e := entries(home, "alice")["ready?"])["next"] and e, "the next step has its time")
    assert entry["repings"] == 2
    assert entry["next"] >= began + 60
    home.kill()
    move(home, "alice")
    assert entries(home, "alice")["ready?"]["next"] == entry["next"]
    assert len(peer.entries("to_bob")) == 2
    assert len(peer.entries("to_watchdog")) == 1


@pytest.mark.parametrize("apart", [-6 * HOUR, 6 * HOUR])
def test_clocks_that_are_hours_apart(home: Home, peer: Peer, old: Old, apart: float) -> None:
    """Where the message stands in the store says what is older, and not what this machine's clock said then."""
    now = int(time.time() * 1000) - 10 * 60_000
    old.has_read("alice", old.send("alice", "read", "bob", at=f"{now}-0"))
    old.send("alice", "older", "bob", at=f"{now + 1000}-0", ts=now / 1000 + apart)
    old.ask("alice", "bob", "q", sent=now / 1000 + apart + 2, within=24 * HOUR, at=f"{now + 2000}-0")
    old.send("alice", "older", "carol", at=f"{now + 3000}-0")
    old.ask("alice", "carol", "r", sent=now / 1000 + apart + 4, within=24 * HOUR, at=f"{now + 4000}-0")
    old.send("alice", "newer", "bob", at=f"{now + 5000}-0", ts=now / 1000 - apart)
    move(home, "alice")
    assert texts(home, "alice", peek=True) == ["older", "older", "newer"]
    assert states(home, "alice") == {"q": "responded", "r": "open"}


@pytest.mark.parametrize("why", ["gone", "forged", "no stream"])
def test_a_message_that_the_store_has_no_more_was_sent_when_0_1_says_so(
    home: Home, peer: Peer, old: Old, why: str
) -> None:
    """As far as its clock and the store's agree now. An entry id from the future is nobody's place."""
    now = time.time()
    old.send("alice", "older", "bob", at=f"{int((now - 600) * 1000)}-0")
    old.send("alice", "older", "carol", at=f"{int((now - 500) * 1000)}-0")
    q = old.ask("alice", "bob", "q", sent=now - 300, stored=False)
    old.ask("alice", "carol", "r", sent=now - 300, stored=False)
    # When a message was sent that was re-pinged since is not told, but it was before its deadline.
    old.ask("alice", "dave", "s", sent=now - 590, within=100, tries=1, last=now - 5, stored=False)
    old.send("alice", "newer", "dave", at=f"{int((now - 400) * 1000)}-0")
    old.send("alice", "newer", "bob", at=f"{int((now - 200) * 1000)}-0")
    if why == "forged":
        old.send("bob", "q", "alice", at="9999999999999-0", message_id=q)
    elif why == "no stream":
        peer.store.set(peer.key("to_bob"), "oops")
    move(home, "alice")
    assert states(home, "alice") == {"q": "responded", "r": "open", "s": "responded"}


def test_mail_that_waited_when_we_asked_is_no_answer(home: Home, peer: Peer) -> None:
    """Of our own entries, too: a name that is hosted with its first question receives what there was behind it."""
    for k in range(1500):
        peer.send("alice", f"older {k}", sender="bob")
    home.start()
    home.meshctl("send", "bob", "?", "--from", "alice", "--expect-reply")
    wait_until(lambda: receiving(home, "alice"), "alice has received all")
    assert len(texts(home, "alice", peek=True, limit=1000)) == 1000
    assert states(home, "alice") == {"?": "open"}
    peer.send("alice", "newer", sender="bob")
    wait_until(lambda: states(home, "alice") == {"?": "responded"}, "a newer message is a sign of life")


def test_a_place_that_0_1_has_from_another_store(home: Home, peer: Peer, old: Old) -> None:
    """It is beyond all that this one has: 0.1 would wait for ever. All of it is unread, and what comes is received."""
    old.has_read("alice", "253402300799000-0")
    old.has_read_group("alice", "253402300799000-0")
    old.broadcast("before", "bob")
    old.send("alice", "first", "bob")
    move(home, "alice")
    wait_until(lambda: texts(home, "alice", peek=True) == ["first"], "what the store has is unread")
    old.send("alice", "second", "bob")
    old.broadcast("now", "bob")
    wait_until(lambda: set(texts(home, "alice", peek=True)) == {"first", "second", "now"}, "more comes")


def test_a_name_that_was_hosted_elsewhere_meanwhile(home: Home, other: Home, peer: Peer, old: Old) -> None:
    """What was read there or here stays read, and what 0.1 on this machine waited for is waited for."""
    old.send("alice", "one", "bob")
    old.has_read("alice", old.send("alice", "two", "bob"))
    old.send("alice", "three", "bob")
    old.ask("alice", "carol", "q")
    other.start()
    other.meshctl("register", "alice")
    wait_until(lambda: receiving(other, "alice"), "alice is receiving there")
    assert texts(other, "alice", limit=1) == ["one"]
    home.start()
    home.meshctl("register", "alice", "--takeover")
    wait_until(lambda: receiving(home, "alice"), "alice is receiving here")
    assert texts(home, "alice", peek=True) == ["three"]
    assert states(home, "alice") == {"q": "open"}


def test_what_is_damaged_is_said_and_the_rest_is_taken(home: Home, peer: Peer, old: Old) -> None:
    """In the log, in the notify log, and by doctor as long as it is there."""
    (old.folder / "alice.id").mkdir()
    os.mkfifo(old.folder / "alice_group.id")
    old.ask("alice", "carol", "q")
    with open(old.folder / "pending-alice.jsonl", "ab") as ledger:
        ledger.write(b'\x00\xff\n{"id": "torn", "peer"')
    old.send("alice", "first", "bob")
    move(home, "alice")
    assert texts(home, "alice", peek=True) == ["first"]
    assert states(home, "alice") == {"q": "open"}
    lines = wait_until(lambda: [line for line in home.notify_lines("alice") if "0.1" in line], "it is told")
    assert [line.startswith("⚠ ") for line in lines] == [True] * 3
    for file in ("alice.id", "alice_group.id", "pending-alice.jsonl"):
        assert sum(str(old.folder / file) in line for line in lines) == 1
        assert home.log().count(str(old.folder / file)) == 1
    findings = home.run("doctor", "--json").stdout
    assert str(old.folder / "alice.id") in findings
    assert str(old.folder / "alice_group.id") in findings
    assert "pending-alice.jsonl" not in findings
    home.kill()
    move(home, "alice")
    assert len([line for line in home.notify_lines("alice") if "0.1" in line]) == 3
    (old.folder / "alice.id").rmdir()
    (old.folder / "alice_group.id").unlink()
    assert "agent-mesh 0.1" not in home.run("doctor").stdout


# Dies where it is told to: at the record that takes 0.1's files over, and at the marks that they get.
DIES = """
import os, runpy, signal, sys
from meshd.core.records import Moved
from meshd.disk import journal, legacy
where, sys.argv = sys.argv[1], ["meshd", *sys.argv[5:]]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

append, mark = journal.Journal.append, legacy.Left.mark_taken

def dying_append(self, records):
    records = list(records)
    if any(isinstance(record, Moved) and record.entries for record in records):
        if where == "before":
            die()
        if where == "half":
            lines = b"".join(map(journal.line_of, [journal.Header(name=self.name), *records]))
            with open(self.path, "wb") as file:
                file.write(lines[: len(lines) - 40])
            die()
        append(self, records)
        if where == "behind":
            die()
        return
    append(self, records)

def dying_mark(self):
    if where == "unmarked":
        die()
    if where == "one mark":
        os.replace(self.files[0], self.files[0] + legacy.TAKEN)
        die()
    mark(self)
    die()

journal.Journal.append, legacy.Left.mark_taken = dying_append, dying_mark
runpy.run_module("meshd", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("where", ["before", "half", "behind", "unmarked", "one mark", "marked"])
def test_a_crash_at_any_point_neither_loses_nor_takes_twice(home: Home, peer: Peer, old: Old, where: str) -> None:
    began = time.time()
    old.has_read("alice", old.send("alice", "read", "bob"))
    old.has_read_group("alice", old.broadcast("read by all", "bob"))
    old.send("alice", "unread", "bob")
    old.broadcast("not read", "bob")
    old.ask("alice", "bob", "q")
    old.ask("alice", "carol", "r", sent=began - 100, within=60, tries=1, last=began)
    old.ask("alice", "dave", "s", sent=began - 10 * HOUR, tries=5, escalated=True)
    assert home.start(through=[sys.executable, "-c", DIES, where]).poll() is None
    assert home.run("register", "alice", AGENT_MESH_NO_AUTOSTART="1").returncode != 0
    assert home.daemon is not None
    assert home.daemon.wait(20) == -9
    for _ in range(2):
        move(home, "alice")
        assert set(texts(home, "alice", peek=True)) == {"unread", "not read"}
        found = entries(home, "alice")
        assert {text: (entry["state"], entry["repings"]) for text, entry in found.items()} == {
            "q": ("open", 0),
            "r": ("open", 1),
            "s": ("escalated", 4),
        }
        assert found["r"]["next"] == pytest.approx(began + 30)
        home.kill()
    move(home, "alice")
    home.meshctl("ack", "bob", "thanks", "--from", "alice")
    assert set(texts(home, "alice")) == {"unread", "not read"}
    home.meshctl("deregister", "alice")
    home.kill()
    move(home, "alice")
    assert texts(home, "alice", peek=True) == []
    assert set(states(home, "alice")) == {"r", "s"}
    assert hosted(home, "alice") is not None


def test_0_1_s_folder_is_where_0_1_has_it(home: Home, peer: Peer, old: Old, tmp_path: Path) -> None:
    """It knows no XDG_CACHE_HOME."""
    home.env["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    old.has_read("alice", old.send("alice", "read", "bob"))
    old.send("alice", "unread", "bob")
    move(home, "alice")
    assert texts(home, "alice", peek=True) == ["unread"]
