"""`meshctl hook --wait -`: it waits in the background, and ends with 2 when there is mail for an idle session."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.helper import Home, wait_until
from tests.wake.claude import Claude, Events, Waiting, agent, run_hook, send
from tests.wake.conftest import Begin
from tests.wake.test_hooks import one_from


def woken_by(*senders: str) -> tuple[int, str, str]:
    """How a waiting hook ends that wakes its session."""
    names = ", ".join(sorted(set(senders)))
    return 2, "", f"agent-mesh: {len(senders)} unread from {names}: call mesh_inbox\n"


RELEASED = (0, "", "")


def test_mail_to_an_idle_session_ends_it_with_one_line_on_stderr(mesh: Home, bob: Claude, peer: str) -> None:
    waiting = bob.wait()
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    assert waiting.end() == woken_by(peer)
    wait_until(lambda: bob.wake["armed"] == [], "it is used up")
    assert bob.wake["ringing"] == "hook"
    bob.read()
    wake = bob.wake
    assert (wake["ringing"], wake["waiting_since"]) == (None, None)
    assert wake["worked"]["rung"] == "hook"
    assert wake["worked"]["at"] == pytest.approx(time.time(), abs=30)
    assert 0 < wake["worked"]["waited"] < 30


def test_a_turn_later_it_wakes_again(mesh: Home, bob: Claude, peer: str) -> None:
    """For each mail, as long as the session reads."""
    with mesh.rpc() as rpc:
        for _ in range(2):
            waiting = bob.wait()
            send(rpc, bob.name, peer)
            assert waiting.end() == woken_by(peer)
            bob.hook("UserPromptSubmit", prompt=one_from(peer))
            bob.read()
            assert bob.hook("Stop", stop_hook_active=True) is None


def test_mail_that_waits_already_wakes(mesh: Home, bob: Claude, peer: str) -> None:
    """After a moment in which a session that has just come may read by itself."""
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    assert bob.wait(armed=False).end() == woken_by(peer)


def test_a_session_that_comes_after_its_hook_is_woken_too(mesh: Home, begin: Begin, name: str, peer: str) -> None:
    """A client starts its server and its first hooks at the same time."""
    given = json.dumps({"session_id": f"session-of-{name}", "hook_event_name": "SessionStart"})
    waiting = Waiting(mesh, given)
    try:
        bob = begin(name)
        wait_until(lambda: bob.wake["armed"] == ["hook"], "the hook waits")
        with mesh.rpc() as rpc:
            send(rpc, name, peer)
        assert waiting.end() == woken_by(peer)
    finally:
        waiting.close()


def test_a_newer_one_lets_the_older_go_quietly(mesh: Home, bob: Claude, peer: str) -> None:
    """Each end of a turn begins another; all but the last must end, or the model would be told so many times."""
    older = bob.wait("SessionStart")
    for _ in range(3):
        newer = bob.wait(armed=False)
        assert older.end() == RELEASED
        older = newer
    assert bob.wake["armed"] == ["hook"]
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    assert newer.end() == woken_by(peer)


def test_one_that_is_terminated_leaves_nothing_armed(mesh: Home, bob: Claude, peer: str) -> None:
    """As at the end of a session. What it would have told is told by the next."""
    waiting = bob.wait()
    waiting.process.terminate()
    code, out, err = waiting.end()
    assert code != 2
    assert (out, err) == ("", "")
    wait_until(lambda: bob.wake["armed"] == [], "nothing is armed")
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    assert bob.wait(armed=False).end() == woken_by(peer)


def test_several_sessions_do_not_mix(mesh: Home, begin: Begin, name: str, peer: str) -> None:
    sessions = [begin(f"{name}{k}") for k in range(3)]
    waiting = [session.wait() for session in sessions]
    with mesh.rpc() as rpc:
        send(rpc, sessions[1].name, peer, peer)
    sessions[1].has(2)
    assert waiting[1].end()[0] == 2
    assert waiting[0].goes_on
    assert waiting[2].goes_on
    assert [session.wake["armed"] for session in sessions] == [["hook"], [], ["hook"]]


def test_a_session_that_takes_another_name_is_woken_by_that(mesh: Home, bob: Claude, peer: str) -> None:
    waiting = bob.wait()
    before, bob.name = bob.name, f"{bob.name}b"
    bob.client.ok("mesh_register", name=bob.name, role="")
    assert bob.wake["armed"] == ["hook"]
    with mesh.rpc() as rpc:
        send(rpc, before, peer)
        assert agent(mesh, before)["wake"]["armed"] == []
        send(rpc, bob.name, peer)
    assert waiting.end() == woken_by(peer)


def test_a_busy_session_is_not_woken_before_the_end_of_its_turn(
    mesh: Home, bob: Claude, peer: str, events: Events
) -> None:
    waiting = bob.wait("SessionStart")
    bob.hook("UserPromptSubmit")
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    assert bob.hook("PreToolUse") is None  # which takes longer than a ring would
    wake = bob.wake
    assert (wake["busy"], wake["ringing"], wake["armed"]) == (True, None, ["hook"])
    assert waiting.goes_on
    ended = time.time()
    bob.hook("Stop", stop_hook_active=True)  # so that it is not told instead
    assert waiting.end() == woken_by(peer)
    assert events.until("wake.rung", agent=bob.name)["ts"] >= ended


def test_what_it_was_told_between_its_steps_does_not_wake_it_at_the_end_of_the_turn(
    mesh: Home, bob: Claude, peer: str
) -> None:
    """It knows, and has its reasons; a pause later it is reminded."""
    waiting = bob.wait("SessionStart")
    bob.hook("UserPromptSubmit")
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    bob.has(1)
    assert bob.hook("PostToolBatch") == one_from(peer)
    bob.hook("Stop")
    newer = bob.wait(armed=False)
    assert waiting.end() == RELEASED
    bob.hook("PreToolUse")  # which takes longer than a ring would
    assert newer.goes_on
    assert bob.wake["ringing"] is None


def test_after_a_clear_the_old_conversations_hook_is_let_go_and_the_new_one_wakes(
    mesh: Home, bob: Claude, peer: str
) -> None:
    """The client leaves the old one waiting, under an id that no longer means anything."""
    old = bob.wait("SessionStart")
    bob.hook("SessionEnd", reason="clear")
    bob.id = "another"
    new = bob.wait("SessionStart", source="clear", armed=False)
    assert old.end() == RELEASED
    bob.hook("SessionStart", source="clear")
    wait_until(lambda: bob.wake["armed"] == ["hook"], "the new one waits")
    with mesh.rpc() as rpc:
        send(rpc, bob.name, peer)
    assert new.end() == woken_by(peer)


def test_a_subagents_hook_does_not_wait(bob: Claude) -> None:
    assert bob.wait(agent_id="a1", agent_type="general", armed=False).end() == RELEASED


def test_it_outlives_a_crash_of_the_daemon_and_still_wakes(own: Home, own_begin: Begin) -> None:
    """It comes back by itself, to a daemon that it starts if nobody else does; so does the session."""
    own.start()
    bob = own_begin("bob")
    waiting = bob.wait()
    crash(own)
    wait_until(lambda: "hook" in armed(own), "the hook waits again")
    with own.rpc() as rpc:
        send(rpc, "bob", "alice")
    assert waiting.end() == woken_by("alice")


def test_it_outlives_any_number_of_crashes(own: Home, own_begin: Begin) -> None:
    """A session may be idle for days."""
    own.start()
    bob = own_begin("bob")
    waiting = bob.wait()
    for _ in range(4):
        crash(own)
        wait_until(lambda: "hook" in armed(own), "the hook waits again")
    assert waiting.goes_on


def test_after_a_clear_and_a_crash_it_still_wakes(own: Home, own_begin: Begin) -> None:
    """The session comes back with the id that its server was given once, the hook with that of the conversation."""
    own.start()
    bob = own_begin("bob")
    bob.hook("SessionEnd", reason="clear")
    bob.id = "another"
    bob.hook("SessionStart", source="clear")
    waiting = bob.wait("SessionStart", source="clear")
    crash(own)
    wait_until(lambda: "hook" in armed(own), "the hook waits again")
    with own.rpc() as rpc:
        send(rpc, "bob", "alice")
    assert waiting.end() == woken_by("alice")


def crash(home: Home) -> None:
    """kill -9 of the daemon, whoever started it, and until there is another."""
    before = daemon_pid(home)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: daemon_pid(home) not in (None, before), "another daemon runs")


def daemon_pid(home: Home) -> int | None:
    try:
        with home.rpc() as rpc:
            pid: int = rpc.call("hello")["pid"]
    except (OSError, EOFError):
        return None
    return pid


def armed(home: Home) -> list[str]:
    """What is armed for bob, as soon as the daemon knows him."""
    with home.rpc() as rpc:
        return [rung for entry in rpc.call("status")["agents"] for rung in entry["wake"]["armed"]]


def test_it_starts_a_daemon_where_none_runs_unless_that_is_forbidden(own: Home) -> None:
    given = json.dumps({"session_id": "x", "hook_event_name": "SessionStart"})
    forbidden = run_hook(own, given, "--wait", AGENT_MESH_NO_AUTOSTART="1")
    assert (forbidden.returncode, forbidden.stdout) == (0, "")
    assert own.run("status").returncode == 3
    waiting = Waiting(own, given)
    try:
        wait_until(lambda: own.run("status").returncode in (0, 4), "a daemon runs")
        assert waiting.goes_on
    finally:
        waiting.close()
