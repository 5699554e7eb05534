"""The wire of 0.1, in both directions: what our commands write, and what of a 0.1 program's writing is received."""

from __future__ import annotations

import json
import re
import secrets
import time

import pytest

from tests.helper import Home, wait_until
from tests.mesh.peer import Peer, texts

NONCE = re.compile(r"[0-9a-f]{32}")
OURS = {"v", "sid", "n", "re", "thread", "about"}
ENDLESS = re.compile(r"group|all|gate:audit|presence")


def is_near(ts: str) -> bool:
    """Whether a wire time is Unix seconds with decimals, and now."""
    return re.fullmatch(r"\d+\.\d+", ts) is not None and abs(float(ts) - time.time()) < 30


def test_a_message_stands_on_the_private_stream_and_again_in_the_group(home: Home, peer: Peer) -> None:
    """0.1's four fields on `to_<name>`, the same with `to` in the group; beside them only known fields of ours."""
    home.start()
    message_id = home.meshctl("send", "old", "grüße", "--from", "alice").split()[1]
    assert NONCE.fullmatch(message_id)
    (private,) = peer.entries("to_old")
    (group,) = peer.entries("group")
    assert {k: private[k] for k in ("from", "msg", "id")} == {"from": "alice", "msg": "grüße", "id": message_id}
    assert is_near(private["ts"])
    assert set(private) - {"from", "msg", "ts", "id"} == {"v", "sid", "n"}
    assert (private["v"], private["n"]) == ("1", "1")
    assert group == {**private, "to": "old"}


def test_private_and_broadcast_each_stand_in_one_place(home: Home, peer: Peer) -> None:
    """A private message leaves no copy in the group; a broadcast is on no private stream."""
    home.start()
    home.meshctl("send", "old", "psst", "--private", "--from", "alice")
    assert peer.entries("group") == []
    home.meshctl("broadcast", "hear", "--from", "alice")
    (broadcast,) = peer.entries("group")
    assert (broadcast["from"], broadcast["to"], broadcast["msg"]) == ("alice", "*", "hear")
    assert [entry["msg"] for entry in peer.entries("to_old")] == ["psst"]
    assert not [key for key in peer.names() if key.startswith("to_") and key != "to_old"]


def test_fields_of_a_reply_that_is_expected_or_given(home: Home, peer: Peer) -> None:
    """`--expect-reply` adds `expect_reply` and `deadline`, `--re` adds `re`; a count rises with each message."""
    home.start()
    before = time.time()
    home.meshctl("send", "old", "when?", "--from", "alice", "--expect-reply", "--within", "90")
    home.meshctl("send", "old", "that", "--from", "alice", "--re", "abc-1", "--id", "mine.2")
    first, second = peer.entries("to_old")
    assert first["expect_reply"] == "1"
    assert before + 89 < float(first["deadline"]) < time.time() + 91
    assert (second["re"], second["id"]) == ("abc-1", "mine.2")
    assert [first["n"], second["n"]] == ["1", "2"]
    assert first["sid"] == second["sid"]
    assert set(first) | set(second) <= {"from", "msg", "ts", "id", "expect_reply", "deadline"} | OURS


def test_a_ping_of_ours_is_answered_by_a_0_1_program(home: Home, peer: Peer) -> None:
    """The ping has 0.1's fields alone and is in no group; the pong of a 0.1 program ends it."""
    home.start()
    asking = home.begin("ping", "old", "--from", "alice", "--timeout", "15")
    ping = peer.next("to_old")
    assert set(ping) == {"from", "msg_type", "nonce", "ts"}
    assert (ping["from"], ping["msg_type"]) == ("alice", "ping")
    assert NONCE.fullmatch(ping["nonce"])
    assert is_near(ping["ts"])
    peer.add(f"pong:{ping['nonce']}", {"from": "old", "pong": "1"})
    out, _ = asking.communicate(timeout=20)
    assert re.fullmatch(r"pong from old in \d+\.\dms\n", out)
    assert peer.entries("group") == []


def test_a_request_of_ours_is_answered_by_a_0_1_program(home: Home, peer: Peer) -> None:
    """Its id is the nonce of `reply_to`; what a 0.1 program puts there is printed alone."""
    home.start()
    asking = home.begin("request", "old", "which?", "--from", "alice", "--timeout", "15")
    request = peer.next("to_old")
    assert request["reply_to"] == peer.key(f"reply:{request['id']}")
    assert NONCE.fullmatch(request["id"])
    assert request["expect_reply"] == "1"
    peer.add(f"reply:{request['id']}", {"from": "old", "reply": "main, please", "ts": "1.5"})
    out, _ = asking.communicate(timeout=20)
    assert out == "main, please\n"


@pytest.mark.parametrize("late", [False, True])
def test_the_reply_of_a_0_1_program_expires(home: Home, peer: Peer, late: bool) -> None:
    """It sets no expiry: the asker's daemon does when it has the reply, and also where nobody waits for it any more."""
    home.start()
    asking = home.begin("request", "old", "which?", "--from", "alice", "--timeout", "1" if late else "15")
    key = f"reply:{peer.next('to_old')['id']}"
    if late:
        assert asking.communicate(timeout=20)[0] == ""
    peer.add(key, {"from": "old", "reply": "main, please", "ts": "1.5"})
    if not late:
        assert asking.communicate(timeout=20)[0] == "main, please\n"
        wait_until(lambda: peer.ttl(key) > 0, "it expires")
    assert peer.entries(key) == [{"from": "old", "reply": "main, please", "ts": "1.5"}]
    assert 0 < peer.ttl(key) <= 600


def test_a_reply_of_a_0_1_program_that_nobody_took_expires(home: Home, peer: Peer) -> None:
    """Whoever asked is killed as it comes: it becomes a message, and its key goes."""
    home.start()
    home.meshctl("register", "alice")
    asking = home.begin("request", "old", "which?", "--from", "alice", "--timeout", "15")
    key = f"reply:{peer.next('to_old')['id']}"
    asking.kill()
    asking.communicate()
    peer.add(key, {"from": "old", "reply": "main, please", "ts": "1.5"})
    wait_until(lambda: texts(home, "alice", peek=True) == ["main, please"], "it is a message")
    assert 0 < peer.ttl(key) <= 600


def test_the_pong_of_a_0_1_program_expires(home: Home, peer: Peer) -> None:
    """It sets no expiry either."""
    home.start()
    asking = home.begin("ping", "old", "--from", "alice", "--timeout", "15")
    key = f"pong:{peer.next('to_old')['nonce']}"
    peer.add(key, {"from": "old", "pong": "1"})
    assert asking.communicate(timeout=20)[0].startswith("pong from old")
    assert 0 < peer.ttl(key) <= 60


def test_a_0_1_ping_is_ponged_and_expires(home: Home, peer: Peer) -> None:
    """`from` and `pong=1` on `pong:<nonce>`, gone within 60 s; no inbox entry comes of it."""
    home.start()
    home.meshctl("register", "bob")
    nonce = secrets.token_hex(16)
    peer.add("to_bob", {"from": "old", "msg_type": "ping", "nonce": nonce, "ts": f"{time.time():.3f}"})
    pong = peer.next(f"pong:{nonce}")
    assert (pong["from"], pong["pong"]) == ("bob", "1")
    assert 0 < peer.ttl(f"pong:{nonce}") <= 60
    assert texts(home, "bob") == []


def test_a_0_1_request_is_replied_to_on_its_stream(home: Home, peer: Peer) -> None:
    """By its id or by its stream's name, the reply stands on `reply:<nonce>` with 0.1's fields, and expires."""
    home.start()
    home.meshctl("register", "bob")
    for where in ("id", "stream"):
        nonce = secrets.token_hex(16)
        stream = peer.key(f"reply:{nonce}")
        peer.send("bob", "which?", id=nonce, reply_to=stream, expect_reply="1", deadline=f"{time.time() + 60:.3f}")
        assert home.meshctl("listen", "bob", "--timeout", "15") == "[DIRECT from old] which?\n"
        home.meshctl("reply", nonce if where == "id" else stream, "main", "--from", "bob")
        (reply,) = peer.entries(f"reply:{nonce}")
        assert set(reply) == {"from", "reply", "ts"}
        assert (reply["from"], reply["reply"]) == ("bob", "main")
        assert is_near(reply["ts"])
        assert 0 < peer.ttl(f"reply:{nonce}") <= 600


def test_an_answer_and_an_ack_are_private_messages(home: Home, peer: Peer) -> None:
    """`reply` to a plain message carries `re`; `ack` says `ACK: …`. Neither is in the group."""
    home.start()
    home.meshctl("register", "bob")
    message_id = peer.send("bob", "done?")
    assert home.meshctl("listen", "bob", "--timeout", "15") == "[DIRECT from old] done?\n"
    home.meshctl("reply", message_id, "yes", "--from", "bob")
    home.meshctl("ack", "old", "thanks", "--from", "bob")
    answer, ack = peer.entries("to_old")
    assert (answer["from"], answer["msg"], answer["re"]) == ("bob", "yes", message_id)
    assert (ack["from"], ack["msg"]) == ("bob", "ACK: thanks")
    assert peer.entries("group") == []


def test_messages_and_broadcasts_of_0_1_are_received(home: Home, peer: Peer) -> None:
    """With and without fields that we know, and with ones that we don't; each has its notify line."""
    home.start()
    home.meshctl("register", "bob")
    first = peer.send("bob", "plain")
    peer.send("bob", "odd", colour="green")
    second = peer.broadcast("all")
    bare = peer.add("to_bob", {"from": "old", "msg": "bare"})
    wait_until(lambda: len(home.notify_lines("bob")) == 4, "four notify lines")
    assert sorted(texts(home, "bob")) == ["all", "bare", "odd", "plain"]
    lines = home.notify_lines("bob")
    assert f"📨 old: plain [{first}]" in lines
    assert f"📢 old: all [{second}]" in lines
    assert f"📨 old: bare [{bare}]" in lines


def test_the_registry_entry_is_0_1s_with_ours(home: Home, peer: Peer) -> None:
    """`agent role pid ts` as 0.1 reads them, and host, version, session, wake; it expires in 180 s."""
    daemon = home.start()
    home.meshctl("register", "bob", "--role", "reviewer")
    entry = json.loads(peer.store.get(peer.key("registry:bob")))
    assert (entry["agent"], entry["role"], entry["pid"]) == ("bob", "reviewer", daemon.pid)
    assert abs(entry["ts"] - time.time()) < 30
    assert {"host", "version", "session", "wake"} <= set(entry)
    assert entry["session"] is False
    assert 170 < peer.ttl("registry:bob") <= 180
    home.meshctl("deregister", "bob")
    assert peer.ttl("registry:bob") == -2


def test_the_gate_writes_an_audit_row_for_every_send(home: Home, peer: Peer) -> None:
    """Fields and verdict of 0.1, the text cut at 200 characters; the counter expires with its window."""
    home.start()
    home.meshctl("send", "old", "ü" * 300, "--from", "alice")
    (row,) = peer.entries("gate:audit")
    assert set(row) == {"from", "to", "rate", "window", "verdict", "ts", "msg"}
    assert (row["from"], row["to"], row["rate"], row["window"]) == ("alice", "old", "1", "10")
    assert row["verdict"] == "allow"
    assert row["msg"] == "ü" * 200
    assert 0 < peer.ttl("gate:rate:alice->old") <= 10


def test_every_key_but_four_expires(home: Home, other: Home, peer: Peer) -> None:
    """After everything that writes, no key is left for ever but the streams, the audit and the presence index."""
    home.start()
    other.start()
    home.meshctl("register", "bob", "--role", "r")
    other.meshctl("register", "carol")
    home.meshctl("send", "carol", "hi", "--from", "bob", "--expect-reply")
    home.meshctl("broadcast", "hear", "--from", "bob")
    home.meshctl("ping", "carol", "--from", "bob")
    asking = home.begin("request", "carol", "which?", "--from", "bob", "--timeout", "15")
    for _ in range(2):
        heard = json.loads(other.meshctl("listen", "carol", "--timeout", "15", "--json").splitlines()[-1])["message"]
        other.meshctl("reply", heard["id"], "main", "--from", "carol")
    assert asking.communicate(timeout=20)[0] == "main\n"
    other.meshctl("ack", "bob", "ok", "--from", "carol")
    assert texts(home, "bob") == ["main", "ACK: ok"]
    other.meshctl("register", "bob", "--takeover")
    wait_until(lambda: peer.ttl("read:bob") > 0, "how far bob was read is in the store")
    kinds = {key: peer.ttl(key) for key in peer.names()}
    assert {key for key, ttl in kinds.items() if ttl == -1 and not ENDLESS.fullmatch(key)} == set()
    assert {"to_bob", "to_carol", "group", "gate:audit", "presence"} <= set(kinds)


def test_streams_keep_about_2000_entries(home: Home, peer: Peer) -> None:
    """Private stream, group and audit are trimmed at the bound of 0.1, never below it, where a 0.1 program receives."""
    home.start()
    peer.store.set(peer.key("registry:old"), '{"agent":"old","role":"","pid":1,"ts":1}', ex=180)
    with home.rpc() as rpc:
        for _ in range(12):
            asked = {rpc.send("send", target="old", message="x", from_="alice") for _ in range(200)}
            while asked:
                asked.discard(rpc.read()["id"])
    assert {2000 <= peer.store.xlen(peer.key(name)) <= 2100 for name in ("to_old", "group", "gate:audit")} == {True}
    assert peer.store.xinfo_stream(peer.key("to_old"))["entries-added"] == 2400
