"""The ladder from a `send` to a woken session: the inbox socket first, the waiting hook if that fails, told truly."""

from __future__ import annotations

import time

import pytest

from meshd.core.wake import MOMENT
from tests.helper import Home, wait_until
from tests.wake.claude import Claude, Events, InboxSocket, agent, send
from tests.wake.conftest import Begin
from tests.wake.test_hooks import one_from
from tests.wake.test_waiting import woken_by


@pytest.fixture
def bob(begin: Begin, name: str, inbox: InboxSocket) -> Claude:
    """A session with an inbox socket."""
    session = begin(name, inbox=inbox)
    wait_until(lambda: session.wake["armed"] == ["socket"], "the inbox socket is armed")
    return session


def who(home: Home, name: str) -> dict[str, object]:
    with home.rpc() as rpc:
        found: dict[str, object] = next(e for e in rpc.call("who")["agents"] if e["agent"] == name)
    return found


def test_the_inbox_socket_is_rung_first_and_the_hook_goes_on_waiting(
    mesh: Home, bob: Claude, peer: str, inbox: InboxSocket
) -> None:
    """The message says who and how many, and which tool to call: not a word of the peer."""
    waiting = bob.wait()
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    said = inbox.message()
    assert said.startswith(one_from(peer))
    assert "launch code" not in said
    wake = bob.wake
    assert (wake["armed"], wake["ringing"], wake["failed"]) == (["socket", "hook"], "socket", {})
    assert wake["waiting_since"] == pytest.approx(time.time(), abs=10)
    assert bob.read() == ["the launch code is 0000"]
    assert waiting.goes_on
    wake = bob.wake
    assert (wake["armed"], wake["ringing"], wake["waiting_since"]) == (["socket", "hook"], None, None)
    assert wake["worked"]["rung"] == "socket"
    assert 0 < wake["worked"]["waited"] < 30
    assert inbox.is_quiet()


def test_a_dead_inbox_socket_falls_to_the_hook_at_once_and_is_shown(
    mesh: Home, bob: Claude, peer: str, inbox: InboxSocket, events: Events
) -> None:
    waiting = bob.wait()
    inbox.close()
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    assert waiting.end() == woken_by(peer)
    failed = events.until("wake.failed", agent=bob.name)
    assert failed["rung"] == "socket"
    assert "refused" in failed["why"]
    assert events.until("wake.rung", agent=bob.name, rung="hook")["ts"] - failed["ts"] < 5
    assert bob.wake["failed"] == {"socket": failed["why"]}
    assert f"{bob.name}: the socket rung failed: " in mesh.meshctl("status")
    assert who(mesh, bob.name)["wake"] == ["notify"]
    bob.read()
    assert bob.wake["worked"]["rung"] == "hook"
    assert bob.wake["failed"] == {"socket": failed["why"]}


def test_a_dead_inbox_socket_with_nothing_else_leaves_it_to_the_next_step(
    mesh: Home, bob: Claude, peer: str, inbox: InboxSocket, events: Events
) -> None:
    """Nobody was told, so the session is, as soon as it does anything."""
    inbox.close()
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    events.until("wake.failed", agent=bob.name)
    assert bob.wake["armed"] == []
    assert bob.hook("UserPromptSubmit") == one_from(peer)


def test_a_burst_is_one_ring(mesh: Home, bob: Claude, peer: str, inbox: InboxSocket) -> None:
    with mesh.rpc() as rpc:
        send(rpc, bob.name, *[peer] * 30)
    inbox.message()
    bob.has(30)
    bob.hook("PreToolUse")  # which takes longer than a ring would
    assert inbox.is_quiet()
    bob.read()


def test_somebody_who_waits_for_the_mail_has_a_moment_before_the_ring(
    mesh: Home, bob: Claude, peer: str, inbox: InboxSocket, events: Events
) -> None:
    """Whoever listens reads it by himself in that time; this one only watches."""
    with mesh.rpc() as watching, mesh.rpc() as rpc:
        watching.send("watch", name=bob.name)
        wait_until(lambda: agent(mesh, bob.name)["sessions"] == 2, "somebody waits")
        send(rpc, bob.name, peer)
        came, rung = events.until("agent.wake", agent=bob.name), events.until("wake.rung", agent=bob.name)
    assert rung["ts"] - came["ts"] > MOMENT / 2  # the two are dated by the clock that can be set
    inbox.message()
    bob.read()


def test_each_mail_to_a_session_that_reads_rings(mesh: Home, bob: Claude, peer: str, inbox: InboxSocket) -> None:
    said = []
    with mesh.rpc() as rpc:
        for _ in range(3):
            send(rpc, bob.name, peer)
            said.append(inbox.message())
            bob.read()
    assert len(set(said)) == 3  # a client drops a message that is the same as the last


def test_a_prompt_that_is_the_ring_is_not_told_twice(mesh: Home, bob: Claude, peer: str, inbox: InboxSocket) -> None:
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
        said = inbox.message()
        assert bob.hook("UserPromptSubmit", prompt=said) is None
        assert bob.hook("PostToolBatch") is None
        send(rpc, bob.name, peer)
        bob.has(2)
    assert bob.hook("PostToolBatch") == f"agent-mesh: 2 unread from {peer}: call mesh_inbox"


def test_a_ring_that_never_became_a_prompt_does_not_keep_the_session_from_being_told(
    mesh: Home, bob: Claude, peer: str, inbox: InboxSocket
) -> None:
    """The socket answers nothing, so only the prompt shows that a ring came through."""
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    inbox.message()
    assert bob.hook("UserPromptSubmit", prompt="something else") == one_from(peer)


def test_who_tells_how_an_agent_is_woken_and_what_worked_last(
    mesh: Home, bob: Claude, peer: str, inbox: InboxSocket
) -> None:
    bob.wait()
    found = who(mesh, bob.name)
    assert (found["wake"], found["worked"]) == (["socket", "hook", "notify"], None)
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    inbox.message()
    bob.read()
    worked = bob.wake["worked"]
    assert set(worked) == {"rung", "at", "waited"}
    assert who(mesh, bob.name)["worked"] == worked
    shown = next(line for line in mesh.meshctl("who").splitlines() if line.startswith(bob.name))
    assert "socket, read after" in shown
    shown = next(line for line in mesh.meshctl("status").splitlines() if line.startswith(bob.name))
    assert "socket,hook" in shown


def test_a_session_that_ends_leaves_no_rung_and_the_mail_unread(
    mesh: Home, bob: Claude, peer: str, inbox: InboxSocket
) -> None:
    bob.wait()
    assert bob.client.end() == 0
    wait_until(lambda: bob.wake["armed"] == [], "nothing is armed")
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    assert agent(mesh, bob.name)["sessions"] == 0
    assert inbox.is_quiet()


def test_mail_that_came_while_nobody_was_there_wakes_the_next_session(
    mesh: Home, begin: Begin, name: str, peer: str, inbox: InboxSocket
) -> None:
    """After a moment in which it may read by itself."""
    with mesh.rpc() as rpc:
        rpc.call("register", name=name)
        send(rpc, name, peer)
    begin(name, inbox=inbox)
    assert inbox.message().startswith(one_from(peer))


def test_a_session_that_comes_after_one_that_ignored_its_mail_is_woken(
    mesh: Home, begin: Begin, bob: Claude, peer: str, inbox: InboxSocket
) -> None:
    """What the one before was told, at work on, and did not read is news to it."""
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    inbox.message()
    bob.hook("UserPromptSubmit")
    bob.client.end()
    wait_until(lambda: bob.wake["armed"] == [], "the session has ended")
    begin(bob.name, inbox=inbox)
    assert inbox.message().startswith(one_from(peer))
