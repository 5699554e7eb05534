"""What happens to the daemon or its gateway happens to no session: one answer to a request, one copy of a message."""

from __future__ import annotations

import contextlib
import fcntl
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshctl.shim import MAX_LINE
from tests.helper import DEADLINE, Home, Store, a_home, program, wait_until
from tests.helper.processes import alive
from tests.shim.client import HELLO, Client, McpError, a_session, clients_of
from tests.shim.conftest import Open
from tests.shim.daemon import (
    children,
    gateway_pid,
    kill_daemon,
    kill_gateway,
    stop_daemon,
    stopped,
    waiting,
)

FAULTS = [kill_daemon, stop_daemon, kill_gateway]


@pytest.mark.parametrize("fault", FAULTS)
def test_waiting_calls_are_answered_once(own: Home, own_session: Open, fault: object) -> None:
    """A request and twenty listening calls wait when it happens; the session has nothing to do for their answers."""
    assert callable(fault)
    own.start()
    alice, bob = own_session("alice"), own_session("bob")
    asked = alice.begin("mesh_request", to="bob", message="well?", timeout_s=60)
    question = bob.ok("mesh_listen_once", timeout_s=20)["message"]
    listening = [alice.begin("mesh_listen_once", timeout_s=60) for _ in range(20)]
    wait_until(lambda: waiting(own, "alice") == 20, "all of them wait")

    fault(own)
    bob.ok("mesh_reply", to=question["id"], text="yes")
    assert alice.finish(asked).data["reply"] == "yes"
    sent = {bob.ok("mesh_send", to="alice", message=f"m{k}")["id"] for k in range(20)}
    assert {alice.finish(request).data["message"]["id"] for request in listening} == sent
    assert alice.texts() == []
    assert len(alice.answers["1"]) == 1


def test_kills_lose_and_double_no_acknowledged_message(own: Home, own_session: Open) -> None:
    """Twenty sends are on their way at each of six kills, at any moment between the first and the last answer."""
    own.start()
    alice, bob = own_session("alice"), own_session("bob")
    acknowledged, faults = [], [kill_daemon, kill_gateway] * 3
    random.shuffle(faults)
    for k, fault in enumerate(faults):
        requests = [alice.begin("mesh_send", to="bob", message=f"{k}-{n}") for n in range(20)]
        answered = random.randrange(20)
        alice.until(lambda r=requests, n=answered: sum(map(alice.has, r)) >= n, f"{answered} answers")
        fault(own)
        replies = [alice.finish(request) for request in requests]
        acknowledged += [reply.data["id"] for reply in replies if not reply.failed]
        assert [reply.text for reply in replies if reply.failed and "may have been sent" not in reply.text] == []
    received = [message["id"] for message in bob.ok("mesh_inbox", limit=1000)["messages"]]
    assert len(received) == len(set(received))
    assert set(acknowledged) <= set(received)
    assert len(acknowledged) > 90


def test_a_session_keeps_its_name_and_its_mail(own: Home, own_session: Open) -> None:
    """Also the name that it took by itself; what came while nothing ran is unread afterwards."""
    own.start()
    alice, bob = own_session("alice"), own_session("bob")
    alice.ok("mesh_register", name="carol", role="tester")
    bob.ok("mesh_send", to="carol", message="before")
    for fault in FAULTS:
        fault(own)
    sent = bob.ok("mesh_send", to="carol", message="after")
    assert alice.texts() == ["before", "after"]
    assert alice.ok("mesh_ping", agent="carol")["ok"]
    [carol] = [agent for agent in alice.ok("mesh_who")["agents"] if agent["agent"] == "carol"]
    assert (carol["role"], carol["session"]) == ("tester", True)
    assert "carol is another live session" in bob.refused("mesh_send", to="bob", message="x", from_agent="carol")
    assert sent["held"]


def test_what_is_asked_while_nothing_runs_is_answered_once_it_does(own: Home, own_session: Open) -> None:
    own.start()
    alice = own_session("alice", AGENT_MESH_NO_AUTOSTART="1")
    own.kill()
    requests = [alice.begin("mesh_send", to="bob", message=f"m{k}") for k in range(10)]
    alice.notify("notifications/cancelled", {"requestId": requests[9]})
    own.start()
    sent = [alice.finish(request).data["id"] for request in requests[:9]]
    assert [message["id"] for message in own.json("inbox", "bob")["messages"]] == sent
    assert not alice.has(requests[9])


def test_a_daemon_that_was_stopped_is_left_alone_until_a_session_asks_for_something(
    own: Home, own_session: Open
) -> None:
    own.start()
    alice, bob = own_session("alice"), own_session("bob")
    with starts_held_back(own):
        stop_daemon(own)
        assert not starts_it(alice)
        assert not starts_it(bob)
    assert own.run("status").returncode == 3
    bob.ok("mesh_send", to="alice", message="hello")
    assert alice.texts() == ["hello"]
    assert own.run("status").returncode == 0


def test_a_session_is_told_that_the_daemon_was_stopped_also_by_a_gateway_that_was_slow(
    own: Home, own_session: Open
) -> None:
    """It has no turn on the processor until the daemon has said its last word."""
    daemon = own.start()
    alice = own_session("alice")
    with starts_held_back(own):
        with stopped(gateway_pid(own)):
            daemon.terminate()
            wait_until(lambda: not listens(own), "the daemon takes no clients any more")
        assert daemon.wait(DEADLINE) == 0
        assert not starts_it(alice)


def test_a_session_without_a_gateway_is_told_that_the_daemon_was_stopped(own: Home, own_session: Open) -> None:
    """The daemon is asked for a gateway, and stopped before it has one."""
    daemon = own.start()
    alice = own_session("alice")
    with starts_held_back(own):
        kill_gateway(own)
        with stopped(gateway_pid(own)):  # the next one never comes to listen
            assert not starts_it(alice)  # it asks
            daemon.terminate()
            assert daemon.wait(DEADLINE) == 0
        assert not starts_it(alice)


def test_a_gateway_that_hangs_does_not_keep_the_daemon(own: Home, own_session: Open) -> None:
    own.start()
    own_session("alice")
    with stopped(gateway_pid(own)) as gateway:
        assert own.stop() == 0
        assert not alive(gateway)


def listens(home: Home) -> bool:
    with contextlib.suppress(OSError), contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(home.socket)
        return True
    return False


@contextlib.contextmanager
def starts_held_back(home: Home) -> Iterator[None]:
    """Who starts the daemon waits for its turn for as long as this lasts."""
    with open(home.socket + ".start", "a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def starts_it(session: Client) -> bool:
    """Whether the session, whose gateway has gone, starts the daemon. What it refuses itself shows where it is."""
    for _ in range(3):
        with pytest.raises(McpError, match="longer than"):
            session.result(session.request("ping", {"x": "x" * MAX_LINE}))
    return any("meshctl up" in line for line in children(session.process.pid).values())


def test_a_client_that_gives_all_its_requests_one_id_outlives_the_gateway(own: Home, tmp_path: Path) -> None:
    """The handshake among them: it is replayed although a request of that id is open."""
    own.start()
    with contextlib.closing(Client(own, tmp_path / "alice")) as alice:
        alice.result(alice.request("initialize", HELLO, "same"))
        alice.answers.clear()
        alice.begin("mesh_listen_once", "same", timeout_s=60)
        wait_until(lambda: waiting(own, "alice") == 1, "it listens")
        kill_gateway(own)
        own.meshctl("send", "alice", "hello")
        assert alice.finish("same").data["message"]["text"] == "hello"


# --- no daemon at all ---


def test_sessions_that_open_at_once_start_the_one_daemon_that_they_need(own: Home, own_session: Open) -> None:
    clients: list[Client] = []
    threads = [threading.Thread(target=lambda k=k: clients.append(own_session(f"a{k}"))) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 4
    found = {agent["agent"]: agent["pid"] for agent in clients[0].ok("mesh_who")["agents"]}
    assert sorted(found) == ["a0", "a1", "a2", "a3"]
    assert set(found.values()) == {own.json("status")["pid"]}


def impatient(seconds: float) -> tuple[str, ...]:
    """The shim with less patience, as a command."""
    code = f"import sys; from meshctl import shim; shim.PATIENCE = {seconds}; sys.exit(shim.run())"
    return (sys.executable, "-c", code)


def test_without_a_daemon_that_may_be_started_requests_are_refused_in_time(own: Home, tmp_path: Path) -> None:
    """The error says what forbids it and what to do; the session works as soon as somebody does that."""
    options = {"command": impatient(0.5), "AGENT_MESH_NO_AUTOSTART": "1"}
    with clients_of(own, tmp_path / "alice", **options) as [client]:
        with pytest.raises(McpError, match=r"AGENT_MESH_NO_AUTOSTART forbids to start it\. Next: meshctl up"):
            client.initialize()
        own.start()
        client.initialize()
        assert client.ok("mesh_who")["agents"]


def test_a_call_that_has_waited_for_long_outlives_a_restart_like_any_other(own: Home, own_session: Open) -> None:
    """Patience counts from the moment the daemon went, not from the request."""
    own.start()
    patience = 2.0
    alice = own_session("alice", command=impatient(patience), AGENT_MESH_NO_AUTOSTART="1")
    listening, began = alice.begin("mesh_listen_once", timeout_s=60), time.monotonic()
    wait_until(lambda: time.monotonic() - began > patience, "it has waited for longer than the patience")
    own.kill()
    own.start()
    own.meshctl("send", "alice", "hello")
    assert alice.finish(listening).data["message"]["text"] == "hello"


@pytest.mark.parametrize("broken", ["state", "config", "socket"])
def test_a_daemon_that_cannot_start_is_an_error_that_says_why(own: Home, tmp_path: Path, broken: str) -> None:
    """And the session works as soon as what was wrong is mended, without being started anew."""
    path, why = {
        "state": (own.state, f"{own.state}"),
        "config": (own.config, "no_such_key"),
        "socket": (Path(own.socket).parent, "agent-mesh"),
    }[broken]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no_such_key = 1\n")
    with clients_of(own, tmp_path / "alice", command=impatient(0.5)) as [client]:
        with pytest.raises(McpError, match=why) as refused:
            client.initialize()
        assert "Next: " in refused.value.message
        path.unlink()
        wait_until(lambda: handshake(client), "the handshake works")
        assert client.ok("mesh_who")["agents"]


def handshake(client: Client) -> bool:
    """Whether it works now."""
    try:
        client.initialize()
    except McpError:
        return False
    return True


def test_a_request_that_ends_the_daemon_each_time_is_given_up(own: Home, own_session: Open) -> None:
    """It must not take the mesh down for ever; what else is asked meanwhile is answered."""
    own.start()
    alice = own_session("alice")
    waiting = alice.begin("mesh_listen_once", timeout_s=60)
    while not alice.has(waiting):
        assert alice.ok("mesh_who")["agents"]
        kill_gateway(own)
    with pytest.raises(McpError, match=r"the daemon went away each time that it was asked this\. Next: meshctl logs"):
        alice.finish(waiting)
    assert alice.ok("mesh_who")["agents"]


# --- no store ---


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Store]:
    """A store that the test may kill."""
    (tmp_path / "store").mkdir()
    store = Store(program("valkey"), tmp_path / "store", "--appendonly", "yes")
    yield store
    store.close()


@contextlib.contextmanager
def started(home: Home, folder: Path) -> Iterator[Client]:
    """A session of a daemon that runs."""
    home.start()
    with a_session(home, folder) as client:
        yield client


def test_sessions_open_while_the_store_is_down(stores: Store, tmp_path: Path) -> None:
    """They do not wait for one another: a client gives a server up that takes long to begin.

    Each says its name; its tools say what is wrong; all works by itself when the store is back.
    """
    stores.kill()
    folders = [tmp_path / f"a{k}" for k in range(4)]
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(a_home(tmp_path / "home", stores.url))
        home.start()
        clients = stack.enter_context(clients_of(home, *folders))
        began = time.monotonic()
        for client in clients:
            client.request("initialize", HELLO)
        took = []
        for k, client in enumerate(clients):
            assert f"You are a{k};" in client.result(1)["instructions"]
            took.append(time.monotonic() - began)
        assert took[-1] < 2 * took[0], took
        alice = clients[0]
        asked = [
            alice.begin("mesh_send", to="bob", message="hello"),
            alice.begin("mesh_broadcast", message="hello"),
            alice.begin("mesh_request", to="bob", message="hello"),
            alice.begin("mesh_inbox"),
            alice.begin("mesh_who"),
            alice.begin("mesh_ping", agent="bob"),
        ]
        for reply in map(alice.finish, asked):
            assert reply.failed
            assert "the store unix://" in reply.text
            assert "tell your user if it lasts: meshctl doctor." in reply.text
        stores.start()
        wait_until(lambda: not alice.call("mesh_who").failed, "the store is back")
        home.meshctl("send", "a0", "hello", "--from", "bob")
        assert alice.ok("mesh_listen_once", timeout_s=20)["message"]["text"] == "hello"
        wait_until(lambda: len(alice.ok("mesh_who")["agents"]) == 4, "the others have their names, too")


def test_a_session_outlives_a_store_that_stops_answering(stores: Store, tmp_path: Path) -> None:
    """Its tools say what may have become of a message, and what waits goes on to wait."""
    with a_home(tmp_path / "home", stores.url) as home, started(home, tmp_path / "alice") as alice:
        listening = alice.begin("mesh_listen_once", timeout_s=60)
        wait_until(lambda: waiting(home, "alice") == 1, "it listens")
        stores.pause()
        assert "It may have been sent." in alice.refused("mesh_send", to="bob", message="lost")
        stores.resume()
        wait_until(lambda: not alice.call("mesh_who").failed, "the store is back")
        sent = alice.ok("mesh_send", to="alice", message="hello")["id"]
        assert alice.finish(listening).data["message"]["id"] == sent
