"""Who a session is: its name, where it comes from, that nobody else has it, and that it comes back."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor.proxy import Proxy, slow
from tests.helper import Home, Store, a_home, program, wait_until
from tests.mesh.peer import Peer
from tests.shim.client import HELLO, MESHCTL, Client, a_session, clients_of
from tests.shim.conftest import Open, opener
from tests.shim.daemon import kill_daemon, kill_gateway

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def called(client: Client) -> str:
    """The name by which the session goes, as its handshake says."""
    said = client.answers["1"][0]["result"]["instructions"]
    found = re.search(r"You are ([^;]*);", said)
    assert found, said
    return found[1]


def live(home: Home) -> list[str]:
    """The names of live sessions."""
    return sorted(agent["agent"] for agent in home.json("who")["agents"] if agent["session"])


def hosted(home: Home) -> list[str]:
    return sorted(agent["name"] for agent in home.json("status")["agents"])


def unread(home: Home) -> dict[str, int]:
    return {agent["name"]: agent["unread"] for agent in home.json("status")["agents"]}


# --- where it comes from ---


def test_a_session_goes_by_the_name_that_its_user_chose(session: Open, name: str) -> None:
    alice = session(name)
    assert called(alice) == name
    sent = alice.ok("mesh_send", to=name, message="to myself")
    assert [(m["from"], m["id"]) for m in alice.ok("mesh_inbox")["messages"]] == [(name, sent["id"])]


def test_a_session_without_one_goes_by_its_folder(session: Open, name: str) -> None:
    assert called(session(name, named=False)) == name


def test_the_clients_project_is_the_folder_where_it_says_so(
    session: Open, tmp_path: Path, name: str, peer: str
) -> None:
    client = session(peer, named=False, CLAUDE_PROJECT_DIR=str(tmp_path / f"{name}/"))
    assert called(client) == name


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("my project", "my-project"),
        ("проект", "agent"),
        ("été 2026", "t-2026"),
        ("a.b.c", "a-b-c"),
        ("*", "agent"),
        ("...", "agent"),
        ("--x--", "x"),
        ("a\nb", "a-b"),
        ("\x1b[31m", "31m"),
        ("<b>&amp;", "b-amp"),
        ("x" * 100, "x" * 60),
        ("名" * 70, "agent"),
        ("name_with-all-9", "name_with-all-9"),
    ],
)
def test_a_strange_folder_makes_a_proper_name(mesh: Home, tmp_path: Path, folder: str, expected: str) -> None:
    with a_session(mesh, tmp_path / folder) as client:
        assert called(client) == expected
        assert NAME.fullmatch(called(client))
        assert client.ok("mesh_ping", agent=expected)["ok"]


@pytest.mark.parametrize("project", ["/", "//", ".", "..", "/..", " ", "\udcff\udcfe", "x" * 5000])
def test_a_project_that_is_no_folder_makes_a_proper_name(mesh: Home, tmp_path: Path, project: str) -> None:
    with a_session(mesh, tmp_path, CLAUDE_PROJECT_DIR=project) as client:
        assert NAME.fullmatch(called(client))


def test_a_folder_that_is_gone_makes_a_name_too(own: Home, own_session: Open, tmp_path: Path, name: str) -> None:
    """Before the session, and during it: the name that it had is the one that it has afterwards."""
    own.start()
    client = own_session(name, named=False)
    (tmp_path / name).rmdir()
    kill_gateway(own)
    assert client.ok("mesh_who")["agents"]
    assert live(own) == [name]
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ("sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *MESHCTL)
    with a_session(own, gone, command=command) as other:
        assert NAME.fullmatch(called(other))


@pytest.mark.parametrize("chosen", ["no name", "a/b", "*", "é", "x" * 65, "\x1b[31m", "a\nb", "</x>"])
def test_a_chosen_name_that_is_none_is_said_and_the_folder_s_taken(
    mesh: Home, tmp_path: Path, name: str, chosen: str
) -> None:
    with a_session(mesh, tmp_path / name, AGENT_MESH_NAME=chosen) as client:
        assert called(client).startswith(f"{name} (")
        assert "is no free name)" in called(client)
        assert client.ok("mesh_ping", agent=name)["ok"]


# --- that nobody else has it ---


def test_sessions_of_one_folder_have_names_of_their_own(session: Open, name: str) -> None:
    clients = [session(name, named=False) for _ in range(4)]
    assert [called(client) for client in clients] == [name, f"{name}-2", f"{name}-3", f"{name}-4"]


def test_a_long_name_with_a_number_is_still_one(mesh: Home, tmp_path: Path) -> None:
    with a_session(mesh, tmp_path / ("y" * 100)) as first, a_session(mesh, tmp_path / ("y" * 100)) as second:
        assert (called(first), called(second)) == ("y" * 60, "y" * 60 + "-2")


def test_a_chosen_name_that_another_session_has_gets_a_number_and_says_so(session: Open, name: str) -> None:
    session(name)
    assert called(session(name)) == f"{name}-2 ({name} is no free name)"


def test_sessions_that_open_at_the_same_moment_have_names_of_their_own(mesh: Home, tmp_path: Path, name: str) -> None:
    """Also while the first one's name is still being asked for in the store."""
    with clients_of(mesh, *[tmp_path / name] * 6) as clients:
        for client in clients:
            client.request("initialize", HELLO)
        for client in clients:
            client.result(1)
        expected = [name, *(f"{name}-{k}" for k in range(2, 7))]
        assert sorted(map(called, clients)) == expected
        assert [agent for agent in live(mesh) if agent.startswith(name)] == expected


def test_nobody_speaks_or_reads_for_another_session(mesh: Home, session: Open, name: str, peer: str) -> None:
    """Each attempt is an error that says whose name it is, and does nothing."""
    alice, bob = session(name), session(peer)
    mesh.meshctl("send", peer, "for bob alone")
    sent = bob.ok("mesh_send", to=name, message="well?", expect_reply=True)
    attempts = {
        "mesh_send": {"to": name, "message": "x", "from_agent": peer},
        "mesh_request": {"to": name, "message": "x", "from_agent": peer},
        "mesh_broadcast": {"message": "x", "from_agent": peer},
        "mesh_ack": {"peer": name, "text": "x", "from_agent": peer},
        "mesh_reply": {"to": sent["id"], "text": "x", "from_agent": peer},
        "mesh_inbox": {"name": peer},
        "mesh_listen_once": {"name": peer},
        "mesh_pending": {"name": peer},
        "mesh_register": {"name": peer},
    }
    for tool, arguments in attempts.items():
        said = alice.refused(tool, **arguments)
        assert f"{peer} is another live session here" in said, tool
        assert f"leave the name out to be {name}" in said, tool
    assert alice.texts() == ["well?"]
    assert bob.texts() == ["for bob alone"]
    assert [entry["id"] for entry in bob.ok("mesh_pending")["entries"]] == [sent["id"]]


def test_a_name_of_no_live_session_can_be_spoken_and_read_for(mesh: Home, session: Open, name: str, peer: str) -> None:
    """As by a session that works for an agent on the command line."""
    alice = session(name)
    mesh.meshctl("register", peer)
    mesh.meshctl("send", peer, "hello", "--from", name)
    assert [m["text"] for m in alice.ok("mesh_inbox", name=peer)["messages"]] == ["hello"]
    alice.ok("mesh_send", to=name, message="back", from_agent=peer)
    assert [m["from"] for m in alice.ok("mesh_inbox")["messages"]] == [peer]


def test_a_name_is_free_again_when_its_session_ends(mesh: Home, session: Open, name: str, peer: str) -> None:
    alice, bob = session(name), session(peer)
    alice.refused("mesh_register", name=peer)
    bob.end()
    wait_until(lambda: peer not in live(mesh), "bob's session is gone")
    assert alice.ok("mesh_register", name=peer)["name"] == peer
    assert called(session(name)) == name


def test_a_name_that_a_session_gave_up_is_free(session: Open, name: str, peer: str) -> None:
    alice = session(name)
    alice.ok("mesh_register", name=peer)
    assert called(session(name)) == name
    assert peer in alice.refused("mesh_register", name=name)


def test_a_name_that_cannot_be_taken_leaves_the_session_its_own(own: Home, elsewhere: Home, own_session: Open) -> None:
    """Held by another daemon: neither its mail nor its name is touched."""
    own.start()
    elsewhere.start()
    elsewhere.meshctl("register", "carol")
    alice = own_session("alice")
    assert "carol is held by" in alice.refused("mesh_register", name="carol")
    assert "carol is held by" in alice.refused("mesh_inbox", name="carol")
    own.meshctl("send", "carol", "hello")
    assert [m["text"] for m in elsewhere.json("inbox", "carol")["messages"]] == ["hello"]
    alice.ok("mesh_send", to="alice", message="still me")
    assert alice.texts() == ["still me"]
    assert called(own_session("carol")) == "carol-2 (carol is no free name)"


def test_a_name_that_is_not_certain_to_be_given_up_is_not_given_away(stores: Store, tmp_path: Path) -> None:
    """A session that opens while another one is about to take a new name does not get its old one."""
    with a_home(tmp_path / "home", stores.url) as home:
        home.start()
        with a_session(home, tmp_path / "proj") as first:
            stores.pause()
            renaming = first.begin("mesh_register", name="other")
            with a_session(home, tmp_path / "proj") as second:
                assert (called(first), called(second)) == ("proj", "proj-2")
                stores.resume()
                assert first.finish(renaming).data["name"] == "other"
                wait_until(lambda: live(home) == ["other", "proj-2"], "all have their names")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Store]:
    """A store that the test may stop."""
    (tmp_path / "store").mkdir()
    store = Store(program("valkey"), tmp_path / "store")
    yield store
    store.close()


# --- that it comes back ---


def test_a_conversation_that_is_resumed_has_the_name_that_it_had(mesh: Home, session: Open, name: str) -> None:
    """Even if another session of the folder has taken the default meanwhile."""
    first, second = session(name, named=False), session(name, named=False, CLAUDE_CODE_SESSION_ID=f"{name}-s")
    assert called(second) == f"{name}-2"
    for client in (first, second):
        client.end()
    wait_until(lambda: f"{name}-2" not in hosted(mesh), "its name is given up")
    assert called(session(name, named=False)) == name
    assert called(session(name, named=False, CLAUDE_CODE_SESSION_ID=f"{name}-s")) == f"{name}-2"


def test_a_resumed_conversation_whose_name_is_taken_gets_another(session: Open, name: str) -> None:
    first = session(name, named=False, CLAUDE_CODE_SESSION_ID=f"{name}-s")
    first.end()
    session(name, named=False)
    assert called(session(name, named=False, CLAUDE_CODE_SESSION_ID=f"{name}-s")) == f"{name}-2"


# --- what becomes of it ---


def test_a_name_with_a_number_goes_with_its_session(mesh: Home, session: Open, name: str) -> None:
    """It was made up; the folder's own name stays, with its mail."""
    first, second = session(name, named=False), session(name, named=False)
    assert {name, f"{name}-2"} <= set(hosted(mesh))
    second.end()
    wait_until(lambda: f"{name}-2" not in hosted(mesh), "it is given up")
    first.end()
    wait_until(lambda: name not in live(mesh), "the first has gone")
    assert name in hosted(mesh)


@pytest.mark.parametrize("what", ["mail", "a reply"])
def test_a_name_with_a_number_stays_while_something_waits_there(
    mesh: Home, session: Open, name: str, peer: str, what: str
) -> None:
    session(name, named=False)
    second = session(name, named=False)
    if what == "mail":
        mesh.meshctl("send", f"{name}-2", "hello")
    else:
        second.ok("mesh_send", to=peer, message="well?", expect_reply=True)
    second.end()
    wait_until(lambda: f"{name}-2" not in live(mesh), "the session is gone")
    assert f"{name}-2" in hosted(mesh)
    third = session(name, named=False)
    assert called(third) == f"{name}-2"
    assert third.texts() == (["hello"] if what == "mail" else [])


def test_a_name_with_a_number_stays_while_mail_is_on_its_way_to_it(
    tmp_path: Path, mesh_store: Store, prefix: str, name: str
) -> None:
    """The way from the store is so long that the session's end is there first."""
    proxy = Proxy(mesh_store, slow(0.3))
    with contextlib.ExitStack() as stack:
        stack.callback(proxy.close)
        far = stack.enter_context(a_home(tmp_path / "far", proxy.url, AGENT_MESH_PREFIX=prefix))
        far.start()
        session = opener(far, tmp_path, stack)
        session(name, named=False)
        second = session(name, named=False)
        Peer(mesh_store, prefix).send(f"{name}-2", "hello")
        second.end()
        wait_until(lambda: unread(far).get(f"{name}-2") == 1, "it is received")
        assert session(name, named=False).texts() == ["hello"]


def test_a_chosen_name_with_a_number_stays(mesh: Home, session: Open, name: str, peer: str) -> None:
    """It was not made up: whoever chose it is reached by it when the session has gone."""
    session(f"{name}-1").end()
    second = session(name)
    second.ok("mesh_register", name=f"{peer}-1", role="tester")
    second.end()
    wait_until(lambda: not {f"{name}-1", f"{peer}-1"} & set(live(mesh)), "both are gone")
    assert {f"{name}-1", f"{peer}-1"} <= set(hosted(mesh))


def test_a_name_with_a_number_outlives_the_gateway_and_goes_with_its_session(own: Home, own_session: Open) -> None:
    """A made-up name is no less so after a restart of what serves the session."""
    own.start()
    own_session("proj", named=False)
    second = own_session("proj", named=False)
    for fault in (kill_gateway, kill_daemon):
        fault(own)
        second.ok("mesh_who")
        wait_until(lambda: live(own) == ["proj", "proj-2"], "both are back")
    second.end()
    wait_until(lambda: hosted(own) == ["proj"], "its name is given up")


def test_a_resumed_conversation_has_the_name_that_it_took(own: Home, own_session: Open) -> None:
    """Also after a restart of the daemon. Where the file of names is damaged or newer it costs names, and no more."""
    own.start()
    first = own_session("proj", named=False, CLAUDE_CODE_SESSION_ID="s-1")
    first.ok("mesh_register", name="carol")
    first.end()
    own.stop()
    file = own.state / "sessions.json"
    for content, expected in (
        (file.read_text(), "carol"),
        ("{", "proj"),
        ('{"names":{"s-1":"a b"}}', "proj"),
        ('{"format":99,"names":{"s-1":"x"}}', "proj"),
    ):
        file.write_text(content)
        own.start()
        client = own_session("proj", named=False, CLAUDE_CODE_SESSION_ID="s-1")
        assert called(client) == expected
        client.end()
        own.stop()
    assert "99" in file.read_text()
