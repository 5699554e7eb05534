"""A name whose lease ran out, or was taken, while its daemon was not there to see it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from meshd.core.message import entry_key
from tests.cli.running import running
from tests.helper import Home, Store, a_home, program, wait_until
from tests.mesh.peer import Peer, hosted, receiving, texts, wait_for_texts

TTL = 3
SHORT = f"""
import runpy, sys
import meshd.core.lease
meshd.core.lease.TTL, meshd.core.lease.RENEW_EVERY = {TTL}, 1.0
sys.argv = ["meshd", *sys.argv[4:]]
runpy.run_module("meshd", run_name="__main__", alter_sys=True)
"""


def start_with_short_leases(home: Home) -> None:
    home.start(through=[sys.executable, "-c", SHORT])


def signalled(home: Home, number: int) -> None:
    assert home.daemon is not None
    os.kill(home.daemon.pid, number)


def no_lease(peer: Peer, name: str) -> bool:
    return peer.ttl(f"lease:{name}") == -2


def kept(peer: Peer, key: str) -> dict[str, Any]:
    """The JSON that the store has there; nothing before there is any."""
    found: dict[str, Any] = json.loads(peer.store.get(peer.key(key)) or b"{}")
    return found


def record(peer: Peer, name: str) -> dict[str, Any]:
    """How far the name's mail was read, as its holder told the store, which it does in its own time."""
    return kept(peer, f"read:{name}")


def read_to(peer: Peer, name: str) -> bool:
    """Whether the store knows that the name's newest entry was read."""
    newest: bytes = peer.store.xinfo_stream(peer.key(f"to_{name}"))["last-generated-id"]
    return bool(record(peer, name).get("p") == newest.decode())


@pytest.fixture
def asleep(home: Home, other: Home, peer: Peer) -> Home:
    """A daemon with three unread messages for bob that was stopped, and is, until its lease has run out."""
    start_with_short_leases(home)
    other.start()
    home.meshctl("register", "bob")
    for n in range(3):
        peer.send("bob", f"q{n}")
    wait_for_texts(home, "bob", "q0", "q1", "q2")
    signalled(home, signal.SIGSTOP)
    wait_until(lambda: no_lease(peer, "bob"), "the lease runs out")
    return home


def test_a_daemon_that_slept_through_its_lease_hands_out_nothing_of_the_new_holder_s(
    asleep: Home, other: Home, peer: Peer
) -> None:
    """Neither what it had, nor what came meanwhile; and what the new holder has read stays read."""
    other.meshctl("register", "bob")
    wait_for_texts(other, "bob", "q0", "q1", "q2")
    peer.send("bob", "q3")
    wait_for_texts(other, "bob", "q3")
    assert texts(other, "bob") == ["q0", "q1", "q2", "q3"]
    signalled(asleep, signal.SIGCONT)
    done = asleep.run("inbox", "bob")
    assert (done.returncode, done.stdout) == (7, "")
    wait_until(lambda: hosted(asleep, "bob") is None, "it has let go")
    assert not [line for line in asleep.notify_lines("bob") if "q3" in line]
    wait_until(lambda: read_to(peer, "bob"), "the record is as the new holder wrote it")
    peer.send("bob", "q4")
    wait_for_texts(other, "bob", "q4")
    asleep.meshctl("register", "bob", "--takeover")
    wait_for_texts(asleep, "bob", "q4")
    assert texts(asleep, "bob") == ["q4"]


def test_a_daemon_that_slept_goes_on_where_another_one_has_read(asleep: Home, other: Home, peer: Peer) -> None:
    """The other one has given the name up again, so that nobody holds it: it was read there all the same."""
    other.meshctl("register", "bob")
    peer.broadcast("to all")
    wait_for_texts(other, "bob", "q0", "q1", "q2", "to all")
    texts(other, "bob")
    other.meshctl("deregister", "bob")
    peer.send("bob", "q3")
    signalled(asleep, signal.SIGCONT)
    assert asleep.meshctl("listen", "bob", "--timeout", "20") == "[DIRECT from old] q3\n"
    peer.broadcast("to all again")
    wait_for_texts(asleep, "bob", "to all again")
    assert texts(asleep, "bob") == ["to all again"]


def test_a_daemon_that_slept_and_whose_name_nobody_took_goes_on(asleep: Home, peer: Peer) -> None:
    peer.send("bob", "q3")
    signalled(asleep, signal.SIGCONT)
    wait_for_texts(asleep, "bob", "q3")
    assert texts(asleep, "bob") == ["q0", "q1", "q2", "q3"]
    assert peer.ttl("lease:bob") > 0


def test_a_session_that_waits_while_its_daemon_sleeps_gets_nothing_twice(home: Home, other: Home, peer: Peer) -> None:
    """It is told that the name has gone, whatever came for it."""
    start_with_short_leases(home)
    other.start()
    with running(home, "listen", "bob", "--timeout", "60") as listening:
        wait_until(lambda: (hosted(home, "bob") or {}).get("sessions"), "listen is attached")
        signalled(home, signal.SIGSTOP)
        wait_until(lambda: no_lease(peer, "bob"), "the lease runs out")
        other.meshctl("register", "bob")
        peer.send("bob", "hello")
        peer.broadcast("to all")
        wait_for_texts(other, "bob", "hello", "to all")
        signalled(home, signal.SIGCONT)
        code, out, err = listening.end()
    assert (code, out) == (7, "")
    assert "--takeover moves it here" in err
    assert sorted(texts(other, "bob")) == ["hello", "to all"]
    assert home.notify_lines("bob") == []


def test_a_name_that_was_lost_in_the_store_and_taken_is_let_go_soon(home: Home, other: Home, peer: Peer) -> None:
    """Long before its next renewal is due: the first thing that tells it is enough. The record is not moved back."""
    home.start()
    other.start()
    home.meshctl("register", "bob")
    peer.send("bob", "one")
    wait_for_texts(home, "bob", "one")
    signalled(home, signal.SIGSTOP)
    peer.store.delete(peer.key("lease:bob"))
    other.meshctl("register", "bob")
    peer.send("bob", "two")
    wait_for_texts(other, "bob", "one", "two")
    texts(other, "bob")
    wait_until(lambda: read_to(peer, "bob"), "the store knows what was read")
    before = record(peer, "bob")
    signalled(home, signal.SIGCONT)
    wait_until(lambda: hosted(home, "bob") is None, "it has let go", deadline=10)
    assert record(peer, "bob") == before
    assert home.run("inbox", "bob").returncode == 7


def test_who_is_about_to_hand_out_finds_that_the_name_is_held_elsewhere(home: Home, other: Home, peer: Peer) -> None:
    """Nothing has told of it before; nothing is handed out, and the other one's record stays as it is."""
    home.start()
    home.meshctl("register", "bob")
    peer.send("bob", "one")
    wait_for_texts(home, "bob", "one")
    wait_until(lambda: record(peer, "bob"), "a record")
    told = "no renewal is due: it would tell first"
    wait_until(lambda: kept(peer, "registry:bob").get("unread") == 1, told)
    taken = json.dumps({**record(peer, "bob"), "h": "f" * 32})
    peer.store.set(peer.key("lease:bob"), "f" * 32, ex=100)
    peer.store.set(peer.key("read:bob"), taken, ex=100)
    done = home.run("inbox", "bob")
    assert (done.returncode, done.stdout) == (7, "")
    wait_until(lambda: hosted(home, "bob") is None, "it has let go", deadline=10)
    assert peer.store.get(peer.key("read:bob")).decode() == taken


@pytest.mark.parametrize("takeover", [True, False])
def test_the_last_word_is_the_new_holder_s_before_it_hands_anything_out(
    takeover: bool, home: Home, other: Home, peer: Peer
) -> None:
    """Else who takes the name next would go on from the holder's before, and hand out again what was read here."""
    home.start()
    other.start()
    home.meshctl("register", "bob")
    peer.send("bob", "one")
    wait_for_texts(home, "bob", "one")
    assert texts(home, "bob") == ["one"]
    wait_until(lambda: read_to(peer, "bob"), "the store knows that it was read")
    at = record(peer, "bob")["p"]
    if takeover:
        other.meshctl("register", "bob", "--takeover")
    else:
        home.meshctl("deregister", "bob")
        other.meshctl("register", "bob")
    holder: bytes = peer.store.get(peer.key("lease:bob"))
    said = record(peer, "bob")
    assert said["h"] == holder.decode()
    assert entry_key(said["p"]) >= entry_key(at)


def test_a_daemon_that_starts_hands_out_nothing_before_it_has_its_lease(home: Home, other: Home, peer: Peer) -> None:
    """It was killed, its lease ran out, and another one holds the name and has read its mail."""
    home.start()
    other.start()
    home.meshctl("register", "bob")
    peer.send("bob", "one")
    wait_for_texts(home, "bob", "one")
    home.kill()
    peer.store.delete(peer.key("lease:bob"))
    other.meshctl("register", "bob")
    wait_for_texts(other, "bob", "one")
    assert texts(other, "bob") == ["one"]
    home.start()
    done = home.run("inbox", "bob")
    assert (done.returncode, done.stdout) == (7, "")


def test_while_the_store_is_away_mail_is_handed_out_for_as_long_as_the_lease_lasts(tmp_path: Path) -> None:
    """Nobody else takes the name before that; afterwards another daemon may read the same. It goes on by itself."""
    folder = tmp_path / "store"
    folder.mkdir()
    store = Store(program("valkey"), folder, "--appendonly", "yes")
    with a_home(tmp_path / "home", store.url) as home:
        start_with_short_leases(home)
        home.meshctl("register", "bob")
        for text in ("one", "two"):
            home.meshctl("send", "bob", text, "--from", "alice")
        wait_for_texts(home, "bob", "one", "two")
        store.kill()
        cut_off = time.time()
        assert home.meshctl("inbox", "bob", "--limit", "1") == "[DIRECT from alice] one\n"
        wait_until(lambda: time.time() > cut_off + TTL + 1, "the lease has run out")
        done = home.run("inbox", "bob")
        assert (done.returncode, done.stdout) == (4, "")
        assert "bob may be another daemon's by now" in done.stderr
        store.start()
        wait_until(lambda: receiving(home, "bob"), "it receives again")
        assert home.meshctl("inbox", "bob") == "[DIRECT from alice] two\n"
    store.close()


def test_the_embedded_store_is_nobody_else_s(tmp_path: Path) -> None:
    """No other daemon reaches it: mail is handed out however long it is away."""
    with a_home(tmp_path / "home") as home:
        start_with_short_leases(home)
        home.meshctl("send", "bob", "one", "--from", "alice")
        home.meshctl("register", "bob")
        wait_for_texts(home, "bob", "one")
        pid = home.json("status")["store"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        stopped = time.time()
        try:
            wait_until(lambda: home.run("status").returncode == 4, "the store is known to be away", 30)
            wait_until(lambda: time.time() > stopped + TTL + 1, "the lease has run out")
            assert home.meshctl("inbox", "bob") == "[DIRECT from alice] one\n"
        finally:
            os.kill(pid, signal.SIGCONT)
