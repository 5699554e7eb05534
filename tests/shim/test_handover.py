"""Read means that the client has it: an answer that was not written to the client leaves its mail unread."""

from __future__ import annotations

import pytest

from tests.helper import Home, wait_until
from tests.shim.conftest import Open
from tests.shim.daemon import gateway_pid, kill, stopped, waiting

# More than a pipe holds, so that a shim whose client does not read stands still in the middle of the answer.
LONG = "x" * 65_000
READERS = ["mesh_inbox", "mesh_listen_once"]


def unread(home: Home, name: str) -> list[str]:
    return [message["text"] for message in home.json("inbox", name, "--peek")["messages"]]


def in_nobodys_hands(home: Home, name: str) -> bool:
    """Whether the oldest unread message of the name can be taken; puts it back."""
    with home.rpc() as rpc:
        return bool(rpc.call("inbox", name=name, limit=1, ack="explicit")["messages"])


def handed_over(home: Home, name: str) -> bool:
    """Whether the name's mail is on its way to somebody: unread, and not to be taken."""
    return bool(unread(home, name)) and not in_nobodys_hands(home, name)


@pytest.mark.parametrize("tool", READERS)
def test_mail_that_was_written_to_the_client_is_read(mesh: Home, session: Open, name: str, tool: str) -> None:
    alice = session(name)
    mesh.meshctl("send", name, "hello", "--from", "bob")
    assert "hello" in alice.call(tool).text
    wait_until(lambda: unread(mesh, name) == [], "it is read")


@pytest.mark.parametrize("tool", READERS)
def test_mail_of_a_client_that_does_not_read_its_answers_is_unread_again(
    mesh: Home, session: Open, name: str, tool: str
) -> None:
    """The shim stands still in the middle of the answer, and is killed there."""
    alice = session(name, reads=False)
    mesh.meshctl("send", name, "-", "--from", "bob", stdin=LONG)
    alice.begin(tool)
    wait_until(lambda: handed_over(mesh, name), "the answer is on its way")
    alice.kill()
    wait_until(lambda: in_nobodys_hands(mesh, name), "the mail can be taken again")
    assert session(name).texts() == [LONG]


def test_mail_in_an_answer_that_the_shim_has_not_taken_is_unread_again(mesh: Home, session: Open, name: str) -> None:
    alice = session(name)
    alice.begin("mesh_listen_once", timeout_s=60)
    wait_until(lambda: waiting(mesh, name) == 1, "it listens")
    alice.pause()
    mesh.meshctl("send", name, "hello", "--from", "bob")
    wait_until(lambda: handed_over(mesh, name), "the answer is on its way")
    alice.kill()
    wait_until(lambda: in_nobodys_hands(mesh, name), "the mail can be taken again")
    assert session(name).texts() == ["hello"]


def test_mail_in_an_answer_that_is_still_to_be_written_is_read_once_it_was(
    mesh: Home, session: Open, name: str
) -> None:
    """The shim was only slow."""
    alice = session(name)
    listening = alice.begin("mesh_listen_once", timeout_s=60)
    wait_until(lambda: waiting(mesh, name) == 1, "it listens")
    alice.pause()
    mesh.meshctl("send", name, "hello", "--from", "bob")
    wait_until(lambda: handed_over(mesh, name), "the answer is on its way")
    alice.resume()
    assert alice.finish(listening).data["message"]["text"] == "hello"
    wait_until(lambda: unread(mesh, name) == [], "it is read")


def test_mail_in_an_answer_that_a_killed_gateway_held_comes_again(own: Home, own_session: Open) -> None:
    """The gateway dies with what it handed over; the same call gets it, and the client one answer."""
    own.start()
    alice = own_session("alice")
    listening = alice.begin("mesh_listen_once", timeout_s=60)
    wait_until(lambda: waiting(own, "alice") == 1, "it listens")
    with stopped(gateway_pid(own)) as gateway:
        own.meshctl("send", "alice", "hello", "--from", "bob")
        wait_until(lambda: handed_over(own, "alice"), "the answer is on its way")
        kill(gateway)
    assert alice.finish(listening).data["message"]["text"] == "hello"
    wait_until(lambda: unread(own, "alice") == [], "it is read")


def test_mail_that_one_session_holds_goes_to_no_other(mesh: Home, session: Open, name: str) -> None:
    """Not to a command line either; what comes after it does."""
    alice = session(name, reads=False)
    mesh.meshctl("send", name, "-", "--from", "bob", stdin=LONG)
    alice.begin("mesh_listen_once")
    wait_until(lambda: handed_over(mesh, name), "the answer is on its way")
    mesh.meshctl("send", name, "second", "--from", "bob")
    assert mesh.meshctl("inbox", name) == "[DIRECT from bob] second\n"
    alice.read()
    wait_until(lambda: unread(mesh, name) == [], "the first is read")
