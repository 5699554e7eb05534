"""The pending ledger from the sender's command to the receiver's log, and through kill -9."""

from __future__ import annotations

import time

import pytest

from tests.helper import Home, wait_until


def start(home: Home) -> None:
    home.start()
    for name in ("alice", "bob", "carol"):
        home.meshctl("register", name)


def ask(home: Home, target: str, text: str = "well?", within: str = "0.5") -> str:
    return home.meshctl("send", target, text, "--from", "alice", "-e", "--within", within).split()[1]


def entries(home: Home) -> dict[str, dict[str, object]]:
    return {entry["id"]: entry for entry in home.json("pending", "alice")["entries"]}


def ids(home: Home, name: str) -> list[str]:
    return [message["id"] for message in home.json("inbox", name, "--peek")["messages"]]


def repings(home: Home, name: str) -> list[str]:
    return [line for line in home.notify_lines(name) if line.startswith("⏰")]


def test_pending_shows_what_is_open(mesh: Home, name: str, peer: str) -> None:
    assert mesh.meshctl("pending", name) == "(no pending entries)\n"
    assert mesh.json("pending", name) == {"name": name, "entries": []}
    mesh.meshctl("register", name)
    sent = mesh.meshctl("send", peer, "well?\nsecond line", "--from", name, "-e", "--within", "100").split()[1]
    header, row = mesh.meshctl("pending", name).splitlines()
    assert header.split() == ["ID", "TO", "STATE", "DUE", "RE-PINGS", "TEXT"]
    assert row.startswith(f"{sent}  {peer}  open")
    assert row.endswith("0/4       well?\\nsecond line")
    (entry,) = mesh.json("pending", name)["entries"]
    assert (entry["to"], entry["state"], entry["repings"]) == (peer, "open", 0)
    assert entry["deadline"] == pytest.approx(time.time() + 100, abs=20)
    mesh.meshctl("ack", peer, "never mind", "--from", name)


def test_an_unread_message_is_not_there_twice_after_its_re_ping(home: Home) -> None:
    """The receiver's log gets the reminder with its clock, its inbox keeps the one message."""
    start(home)
    sent = ask(home, "bob")
    (line,) = wait_until(lambda: repings(home, "bob"), "the re-ping is in the log")
    assert line.startswith("⏰ alice: [re-ping 1/4] well? [")
    (message,) = home.json("inbox", "bob")["messages"]
    assert (message["id"], message["kind"], message["expect_reply"]) == (sent, "direct", True)
    assert entries(home)[sent]["repings"] == 1


def test_a_re_ping_of_a_message_that_was_read_comes_as_a_message(home: Home) -> None:
    start(home)
    sent = ask(home, "bob", within="1.5")
    home.meshctl("inbox", "bob")
    message = wait_until(lambda: home.json("inbox", "bob")["messages"], "the re-ping is in the inbox")[0]
    assert (message["text"], message["kind"], message["about"]) == ("[re-ping 1/4] well?", "reping", sent)


def test_a_plain_message_of_the_peer_stops_the_re_pings_without_settling(home: Home) -> None:
    start(home)
    to_bob, to_carol = ask(home, "bob", within="1.5"), ask(home, "carol", within="2")
    home.meshctl("send", "alice", "I am on it", "--from", "bob")
    wait_until(lambda: entries(home)[to_bob]["state"] == "responded", "bob has responded")
    # carol's is due after bob's: when it has come, bob's would have come before.
    wait_until(lambda: repings(home, "carol"), "carol is reminded")
    assert repings(home, "bob") == []
    assert {entry["state"] for entry in entries(home).values()} == {"responded", "open"}
    assert entries(home)[to_carol]["repings"] == 1


def test_an_entry_is_settled_by_a_reference_a_reply_or_an_ack(home: Home) -> None:
    """Settled before its deadline, it is never re-pinged; another peer's entry is left alone."""
    start(home)
    asked = ("bob", "dave", "erin")
    for within in (3, 12, 48):  # a machine that is too slow for the first finds its time in another
        began, text = time.time(), f"well, within {within}?"
        to_bob, to_dave, to_erin = (ask(home, peer, text, within=str(within)) for peer in asked)
        ask(home, "carol", text, within=str(within))
        wait_until(lambda ask=to_dave: ask in ids(home, "dave"), "dave has it")  # type: ignore[misc]
        home.meshctl("send", "alice", "yes", "--from", "bob", "--re", to_bob)
        home.meshctl("reply", to_dave, "yes", "--from", "dave")
        home.meshctl("ack", "erin", "thanks", "--from", "alice")
        settled = {to_bob, to_dave, to_erin}
        wait_until(lambda ids=settled: not ids & set(entries(home)), "all three are settled")  # type: ignore[misc]
        if time.time() < began + within:
            break
    wait_until(lambda: any(text in line for line in repings(home, "carol")), "carol is reminded")
    assert not [line for peer in asked for line in repings(home, peer) if text in line]


def test_the_ledger_survives_kill_9_and_what_fell_due_meanwhile_is_sent_once(home: Home) -> None:
    start(home)
    sent, later = ask(home, "bob", within="1"), ask(home, "bob", "later?", within="300")
    before = entries(home)
    assert set(before) == {sent, later}
    home.kill()
    wait_until(lambda: time.time() > float(str(before[sent]["deadline"])), "the deadline has passed")
    home.start()
    assert set(entries(home)) == {sent, later}
    wait_until(lambda: entries(home)[sent]["repings"], "the re-ping was sent")
    wait_until(lambda: repings(home, "bob"), "bob is reminded")
    home.kill()
    home.start()
    home.meshctl("send", "bob", "behind any repetition", "--from", "alice")
    wait_until(lambda: len(home.json("inbox", "bob", "--peek")["messages"]) == 3, "the last one is there")
    told = repings(home, "bob")  # a machine that was slow is at the second by now
    assert len(told) == len(set(told))
    assert entries(home)[later] == before[later]


def test_a_message_that_the_gate_denied_leaves_no_entry(home: Home) -> None:
    home.env |= {"AGENT_MESH_GATE_ENFORCE": "1", "AGENT_MESH_GATE_LIMIT": "1"}
    start(home)
    sent = ask(home, "bob", within="60")
    assert home.run("send", "bob", "again", "--from", "alice", "-e").returncode == 1
    assert list(entries(home)) == [sent]


@pytest.mark.parametrize("within", ["0", "-5", "nan", "1e9", "soon"])
def test_a_senseless_deadline_is_refused_and_nothing_is_sent(mesh: Home, name: str, within: str) -> None:
    done = mesh.run("send", name, "well?", "-e", f"--within={within}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "within" in done.stderr
    assert mesh.meshctl("inbox", name) == ""
