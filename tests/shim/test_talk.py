"""Two sessions that talk: ask, answer, settle, and hear what is for everybody."""

from __future__ import annotations

import pytest

from tests.helper import Home, wait_until
from tests.shim.client import Client
from tests.shim.conftest import Open
from tests.shim.daemon import sessions_of


@pytest.fixture
def alice(session: Open, name: str) -> Client:
    return session(name)


@pytest.fixture
def bob(session: Open, peer: str) -> Client:
    return session(peer)


def test_a_request_is_answered_through_the_inbox(alice: Client, bob: Client, name: str, peer: str) -> None:
    """The question waits as mail that says it expects a reply; the reply goes to the asker's call, not its inbox."""
    asked = alice.begin("mesh_request", to=peer, message="which branch?")
    listening = bob.begin("mesh_listen_once", timeout_s=20)
    question = bob.finish(listening).data["message"]
    assert (question["from"], question["text"], question["expect_reply"]) == (name, "which branch?", True)
    assert not alice.has(asked)
    bob.ok("mesh_reply", to=question["id"], text="main")
    assert alice.finish(asked).data["reply"] == "main"
    assert alice.texts() == []


def test_a_request_is_answered_by_its_reply_key_as_well(alice: Client, bob: Client, peer: str) -> None:
    asked = alice.begin("mesh_request", to=peer, message="which branch?")
    question = bob.ok("mesh_listen_once", timeout_s=20)["message"]
    assert question["reply_to"] == f"mesh:reply:{question['id']}"
    bob.ok("mesh_reply", to=question["reply_to"], text="main")
    assert alice.finish(asked).data["reply"] == "main"


def test_two_sessions_can_ask_each_other_at_once(alice: Client, bob: Client, name: str, peer: str) -> None:
    """Neither's waiting call holds up its reading and answering."""
    asked = {
        alice: alice.begin("mesh_request", to=peer, message="a"),
        bob: bob.begin("mesh_request", to=name, message="b"),
    }
    for client in (alice, bob):
        question = client.ok("mesh_listen_once", timeout_s=20)["message"]
        client.ok("mesh_reply", to=question["id"], text=f"re {question['text']}")
    assert alice.finish(asked[alice]).data["reply"] == "re a"
    assert bob.finish(asked[bob]).data["reply"] == "re b"


def test_an_expected_reply_settles_what_was_owed(alice: Client, bob: Client, peer: str) -> None:
    sent = alice.ok("mesh_send", to=peer, message="well?", expect_reply=True, within_s=300)
    assert [entry["id"] for entry in alice.ok("mesh_pending")["entries"]] == [sent["id"]]
    [question] = bob.ok("mesh_inbox")["messages"]
    bob.ok("mesh_reply", to=question["id"], text="yes")
    assert alice.ok("mesh_listen_once", timeout_s=20)["message"]["re"] == sent["id"]
    assert alice.ok("mesh_pending")["entries"] == []


def test_a_message_that_answers_by_its_id_settles_too(alice: Client, bob: Client, name: str, peer: str) -> None:
    sent = alice.ok("mesh_send", to=peer, message="well?", expect_reply=True)
    bob.ok("mesh_send", to=name, message="yes", re=sent["id"])
    assert alice.ok("mesh_listen_once", timeout_s=20)["message"]["re"] == sent["id"]
    assert alice.ok("mesh_pending")["entries"] == []


def test_a_plain_message_stops_the_reminders_and_settles_nothing(
    alice: Client, bob: Client, name: str, peer: str
) -> None:
    alice.ok("mesh_send", to=peer, message="well?", expect_reply=True)
    bob.ok("mesh_send", to=name, message="later")
    alice.ok("mesh_listen_once", timeout_s=20)
    assert [entry["state"] for entry in alice.ok("mesh_pending")["entries"]] == ["responded"]


def test_an_ack_settles_with_that_peer_only(alice: Client, bob: Client, peer: str) -> None:
    kept = alice.ok("mesh_send", to=f"{peer}-x", message="and you?", expect_reply=True)
    owed = alice.ok("mesh_send", to=peer, message="well?", expect_reply=True)
    assert alice.ok("mesh_ack", peer=peer, text="never mind")["settled"] == [owed["id"]]
    assert [entry["id"] for entry in alice.ok("mesh_pending")["entries"]] == [kept["id"]]


def test_a_listening_session_hears_direct_mail_and_leaves_broadcasts_unread(
    mesh: Home, alice: Client, bob: Client, peer: str
) -> None:
    """What `mesh_listen_once` did not hand over is in the next `mesh_inbox`."""
    waiting = bob.begin("mesh_listen_once", timeout_s=20)
    told = alice.ok("mesh_broadcast", message=f"hear, {peer}")["id"]
    direct = alice.ok("mesh_send", to=peer, message="psst")["id"]
    assert bob.finish(waiting).data["message"]["id"] == direct
    wait_until(lambda: told in unread(mesh, peer), "the broadcast has come")
    assert told in [message["id"] for message in bob.ok("mesh_inbox", limit=1000)["messages"]]
    assert told not in unread(mesh, peer)


def unread(home: Home, name: str) -> list[str]:
    return [message["id"] for message in home.json("inbox", name, "--peek")["messages"]]


def test_listening_ends_with_mail_that_was_already_there(alice: Client, bob: Client, peer: str) -> None:
    for text in ("first", "second"):
        alice.ok("mesh_send", to=peer, message=text)
    assert bob.ok("mesh_listen_once", timeout_s=20)["message"]["text"] == "first"
    assert bob.texts() == ["second"]


def test_a_private_message_is_in_no_group(mesh: Home, alice: Client, bob: Client, peer: str) -> None:
    with mesh.rpc() as rpc:
        rpc.send("monitor", name=f"{peer}-w")
        wait_until(lambda: sessions_of(mesh, f"{peer}-w") == 1, "somebody listens to the group")
        alice.ok("mesh_send", to=peer, message="secret", private=True)
        alice.ok("mesh_send", to=peer, message="open")
        while (heard := rpc.read())["params"]["item"]["to"] != peer:
            pass
        assert heard["params"]["item"]["text"] == "open"
    assert bob.texts() == ["secret", "open"]


def test_a_session_and_a_command_line_talk(mesh: Home, bob: Client, name: str, peer: str) -> None:
    mesh.meshctl("register", name)
    with mesh.rpc() as rpc:
        asked = rpc.send("request", target=peer, message="well?", from_=name)
        question = bob.ok("mesh_listen_once", timeout_s=20)["message"]
        bob.ok("mesh_reply", to=question["id"], text="yes")
        answer = rpc.read()
        assert (answer["id"], answer["result"]["reply"]) == (asked, "yes")


def test_a_reply_to_what_one_has_not_received_is_refused(alice: Client, bob: Client, name: str, peer: str) -> None:
    sent = alice.ok("mesh_send", to=peer, message="well?")
    assert "mesh_inbox" in alice.refused("mesh_reply", to=sent["id"], text="to myself")
    assert "mesh_inbox" in alice.refused("mesh_reply", to="mesh:to_" + name, text="aimed at another key")
    assert bob.texts() == ["well?"]
    assert alice.texts() == []
