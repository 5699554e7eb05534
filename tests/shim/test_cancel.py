"""Calls that wait: cancelled, watched, many at once; none of them holds anything else up."""

from __future__ import annotations

import fcntl
import sys
import termios

import pytest

from tests.helper import Home, wait_until
from tests.helper.processes import state_of
from tests.shim.client import Client
from tests.shim.conftest import Open
from tests.shim.daemon import gateway_pid, stopped, waiting


@pytest.fixture
def alice(session: Open, name: str) -> Client:
    return session(name)


def cancel(client: Client, request_id: object) -> None:
    client.notify("notifications/cancelled", {"requestId": request_id, "reason": "the user said so"})


def test_a_cancelled_wait_for_mail_ends_unanswered_and_takes_nothing(
    mesh: Home, alice: Client, name: str, peer: str
) -> None:
    listening = alice.begin("mesh_listen_once", timeout_s=600)
    wait_until(lambda: waiting(mesh, name) == 1, "it listens")
    cancel(alice, listening)
    wait_until(lambda: waiting(mesh, name) == 0, "it does not listen any more")
    mesh.meshctl("send", name, "hello", "--from", peer)
    assert alice.texts() == ["hello"]
    assert not alice.has(listening)


def test_a_cancelled_request_ends_unanswered(session: Open, alice: Client, peer: str) -> None:
    """A reply that comes later is mail, and harms nobody."""
    bob = session(peer)
    asked = alice.begin("mesh_request", to=peer, message="well?", timeout_s=600)
    question = bob.ok("mesh_listen_once", timeout_s=20)["message"]
    cancel(alice, asked)
    bob.ok("mesh_reply", to=question["id"], text="too late")
    assert alice.texts() == ["too late"]
    assert not alice.has(asked)
    assert alice.ok("mesh_ping", agent=peer)["ok"]


def test_mail_in_an_answer_that_was_cancelled_on_its_way_is_unread_again(
    mesh: Home, alice: Client, name: str, peer: str
) -> None:
    """The cancellation and the answer cross; the same session must get the mail by its next call."""
    listening = alice.begin("mesh_listen_once", timeout_s=600)
    wait_until(lambda: waiting(mesh, name) == 1, "it listens")
    alice.pause()
    mesh.meshctl("send", name, "hello", "--from", peer)
    wait_until(lambda: waiting(mesh, name) == 0, "the answer is on its way")
    cancel(alice, listening)
    alice.resume()
    assert alice.ok("mesh_listen_once", timeout_s=10)["message"] is not None
    assert not alice.has(listening)


def test_mail_that_came_at_the_moment_of_the_cancellation_is_unread_again(own: Home, own_session: Open) -> None:
    """The gateway sees both at once: the answer, and that nobody wants it any more."""
    own.start()
    alice = own_session("alice")
    listening = alice.begin("mesh_listen_once", timeout_s=600)
    wait_until(lambda: waiting(own, "alice") == 1, "it listens")
    with stopped(gateway_pid(own)):
        own.meshctl("send", "alice", "hello")
        wait_until(lambda: waiting(own, "alice") == 0, "the answer is on its way")
        cancel(alice, listening)
        wait_until(lambda: idle(alice), "the shim has passed it on")
    assert alice.ok("mesh_listen_once", timeout_s=10)["message"] is not None
    assert not alice.has(listening)


def idle(client: Client) -> bool:
    """Whether the shim has read all that was written to it, and sleeps."""
    assert client.process.stdin is not None
    left = int.from_bytes(fcntl.ioctl(client.process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder)
    return left == 0 and state_of(client.process.pid) == "S"


@pytest.mark.parametrize(
    "params",
    [None, {}, [], [1], "x", {"requestId": None}, {"requestId": 99}, {"requestId": [1]}, {"requestId": {"a": 1}}],
    ids=repr,
)
def test_a_senseless_cancellation_cancels_nothing(mesh: Home, alice: Client, name: str, params: object) -> None:
    listening = alice.begin("mesh_listen_once", timeout_s=600)
    wait_until(lambda: waiting(mesh, name) == 1, "it listens")
    alice.notify("notifications/cancelled", params)
    mesh.meshctl("send", name, "hello")
    assert alice.finish(listening).data["message"]["text"] == "hello"


# --- progress ---


def begin_watched(client: Client, token: object, tool: str, **arguments: object) -> object:
    """A call whose progress is wanted."""
    meta = {"progressToken": token}
    return client.request("tools/call", {"name": tool, "arguments": arguments, "_meta": meta})


def progress(client: Client, token: object) -> list[dict[str, float]]:
    told = [message["params"] for message in client.told if message["method"] == "notifications/progress"]
    return [params for params in told if params["progressToken"] == token]


def test_a_caller_that_wants_to_know_is_told_how_long_it_has_waited(mesh: Home, alice: Client, name: str) -> None:
    """At once and then every few seconds, until the answer and never after it."""
    token = "a token"
    listening = begin_watched(alice, token, "mesh_listen_once", timeout_s=600)
    alice.until(lambda: len(progress(alice, token)) == 2, "it is told twice")
    mesh.meshctl("send", name, "hello")
    assert alice.finish(listening).data["message"]["text"] == "hello"
    first, second = progress(alice, token)
    assert first["progress"] < second["progress"]
    assert first["total"] == second["total"] == 600


def test_nobody_else_is_told_of_progress(mesh: Home, alice: Client, name: str) -> None:
    """Neither a caller that gave no token, nor one whose call does not wait; a token may be a number."""
    watched = begin_watched(alice, 7, "mesh_ping", agent=name)
    alice.finish(watched)
    assert [params["progress"] for params in progress(alice, 7)] == [0]
    alice.told.clear()
    listening = alice.begin("mesh_listen_once", timeout_s=600)
    alice.finish(begin_watched(alice, 1, "mesh_who"))
    mesh.meshctl("send", name, "hello")
    alice.finish(listening)
    assert alice.told == []


# --- many ---


def test_a_hundred_waiting_calls_hold_nothing_up(
    mesh: Home, session: Open, alice: Client, name: str, peer: str
) -> None:
    """Each of them gets a message of its own, and each other call of the session is answered meanwhile."""
    bob = session(peer)
    listening = [alice.begin("mesh_listen_once", timeout_s=600) for _ in range(100)]
    wait_until(lambda: waiting(mesh, name) == 100, "all of them wait")
    assert alice.ok("mesh_who")["agents"]
    assert alice.texts() == []
    asked = alice.begin("mesh_request", to=peer, message="well?", timeout_s=20)
    question = bob.ok("mesh_listen_once", timeout_s=20)["message"]
    bob.ok("mesh_reply", to=question["id"], text="yes")
    assert alice.finish(asked).data["reply"] == "yes"
    sent = {bob.ok("mesh_send", to=name, message=f"m{k}")["id"] for k in range(100)}
    assert {alice.finish(request).data["message"]["id"] for request in listening} == sent
    assert alice.texts() == []


def test_too_many_waiting_calls_are_refused_rather_than_hold_all_others_up(
    mesh: Home, alice: Client, name: str
) -> None:
    listening = [alice.begin("mesh_listen_once", timeout_s=600) for _ in range(300)]
    assert alice.ok("mesh_who")["agents"]
    refused = [request for request in listening if alice.has(request)]
    assert 0 < len(refused) < 200
    assert "Next: " in alice.finish(refused[0]).text
    assert waiting(mesh, name) == 300 - len(refused)
    for request in listening:
        cancel(alice, request)
    wait_until(lambda: waiting(mesh, name) == 0, "none of them waits any more")
    assert alice.call("mesh_listen_once", timeout_s=0.05).text == "no message in time"
