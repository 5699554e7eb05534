"""An idle session is woken by its inbox socket: once for a burst, with no word of a peer, and never after a read."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helper import DEADLINE, Home, wait_until
from tests.shim.client import MESHCTL, Client
from tests.shim.conftest import Open
from tests.shim.daemon import kill_daemon

TOKEN = 'a "token" \\ of\nany kind'


class InboxSocket:
    """A session's inbox socket: takes what is written to it, and answers nothing. `rings` has the lines of each."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "inbox.sock")
        self.rings: list[list[Any]] = []
        self._came = threading.Condition()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.path)
        self._listening.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with connection, connection.makefile("rb") as lines, self._came:
                    self.rings.append([json.loads(line) for line in lines])
                    self._came.notify_all()

    def ring(self, number: int) -> list[Any]:
        """The lines of that ring, the first one being 1."""
        until = time.monotonic() + DEADLINE
        with self._came:
            while len(self.rings) < number:
                assert self._came.wait(until - time.monotonic()), f"not rung {number} times: {self.rings}"
        return self.rings[number - 1]

    def text(self, number: int) -> str:
        """What the session is told by that ring."""
        auth, said = self.ring(number)
        assert auth == {"type": "auth", "token": TOKEN}
        text: str = said["message"]["content"]
        assert said == {"type": "user", "message": {"role": "user", "content": text}}
        return text

    def close(self) -> None:
        if self._listening.fileno() == -1:
            return
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(DEADLINE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


@pytest.fixture
def inbox() -> Iterator[InboxSocket]:
    with tempfile.TemporaryDirectory(prefix="mi") as folder, contextlib.closing(InboxSocket(folder)) as made:
        yield made


def variables(path: str) -> dict[str, str]:
    return {"CLAUDE_CODE_MESSAGING_SOCKET": path, "CLAUDE_CODE_MESSAGING_TOKEN": TOKEN}


def knowing(client: Client) -> Client:
    """The client with its tools known: it is not woken before."""
    client.result(client.request("tools/list"))
    return client


def wake_of(home: Home, name: str) -> dict[str, Any]:
    """What `status` says of how the name is woken."""
    found: dict[str, Any] = next(a["wake"] for a in home.json("status")["agents"] if a["name"] == name)
    return found


def unread_of(home: Home, name: str) -> int:
    unread: int = next(a["unread"] for a in home.json("status")["agents"] if a["name"] == name)
    return unread


@pytest.fixture
def alice(mesh: Home, session: Open, name: str, inbox: InboxSocket) -> Client:
    client = knowing(session(name, **variables(inbox.path)))
    wait_until(lambda: wake_of(mesh, name)["armed"] == ["socket"], "it can be woken")
    return client


def test_mail_wakes_with_who_and_how_many_and_no_word_of_theirs(
    mesh: Home, alice: Client, inbox: InboxSocket, name: str, peer: str
) -> None:
    mesh.meshctl("send", name, "SECRET words", "--from", peer)
    text = inbox.text(1)
    assert text.startswith(f"agent-mesh: 1 unread from {peer}: call mesh_inbox")
    assert "SECRET" not in text
    assert "\n" not in text
    assert wake_of(mesh, name)["ringing"] == "socket"


def test_a_burst_is_one_wake_and_there_is_none_after_it_was_read(
    mesh: Home, alice: Client, inbox: InboxSocket, name: str, peer: str
) -> None:
    """The next mail after that is another wake, which the session can tell from the last."""
    with mesh.rpc() as rpc:
        for k in range(20):
            rpc.send("send", target=name, message=f"m{k}", from_=f"{peer}-{k % 7}")
        for _ in range(20):
            rpc.read()
    first = inbox.text(1)
    wait_until(lambda: unread_of(mesh, name) == 20, "the whole burst is there")
    assert alice.texts() == [f"m{k}" for k in range(20)]
    wait_until(lambda: wake_of(mesh, name)["waiting_since"] is None, "all is read")
    mesh.meshctl("send", name, "one more", "--from", peer)
    second = inbox.text(2)
    assert f"1 unread from {peer}: call mesh_inbox" in second
    assert first != second
    assert alice.texts() == ["one more"]
    mesh.meshctl("send", name, "and another", "--from", peer)
    assert inbox.text(3) not in (first, second)
    assert len(inbox.rings) == 3


def test_many_senders_are_some_and_a_number(
    mesh: Home, session: Open, inbox: InboxSocket, name: str, peer: str
) -> None:
    """A session that comes to know its tools late is told of all that came before."""
    client = session(name, **variables(inbox.path))
    for k in range(7):
        mesh.meshctl("send", name, "x", "--from", f"{peer}-{k}")
    assert wake_of(mesh, name)["armed"] == []
    knowing(client)
    shown = ", ".join(f"{peer}-{k}" for k in range(5))
    assert f"7 unread from {shown} and 2 more: call mesh_inbox" in inbox.text(1)
    assert len(inbox.rings) == 1


def test_who_and_status_say_that_a_session_can_be_woken(mesh: Home, alice: Client, name: str) -> None:
    [agent] = [agent for agent in alice.ok("mesh_who")["agents"] if agent["agent"] == name]
    assert agent["wake"] == ["socket", "notify"]
    assert f'name="{name}"' in alice.call("mesh_who").text
    assert 'wake="socket,notify"' in alice.call("mesh_who").text
    alice.end()
    wait_until(lambda: wake_of(mesh, name)["armed"] == [], "it cannot be woken any more")


def test_a_session_without_an_inbox_socket_has_no_such_rung(mesh: Home, session: Open, name: str) -> None:
    knowing(session(name))
    mesh.meshctl("send", name, "hello")
    assert wake_of(mesh, name)["armed"] == []


@pytest.mark.parametrize("trouble", ["gone", "no socket", "too long a path", "nobody listens"])
def test_a_socket_that_does_not_work_is_said_and_not_tried_again(
    mesh: Home, session: Open, inbox: InboxSocket, name: str, trouble: str
) -> None:
    """By an event and by `status`; the mail is there, and the session works."""
    path = inbox.path
    if trouble == "no socket":
        path += ".txt"
        with open(path, "w") as file:
            file.write("x")
    elif trouble == "too long a path":
        path = "/tmp/" + "x" * 200
    client = knowing(session(name, **variables(path)))
    wait_until(lambda: wake_of(mesh, name)["armed"] == ["socket"], "it is tried")
    if trouble == "gone":
        os.unlink(path)
    elif trouble == "nobody listens":
        inbox.close()
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
    with mesh.rpc() as rpc:
        rpc.send("events.subscribe")
        rpc.read()
        mesh.meshctl("send", name, "hello")
        while (event := rpc.read()["params"]["item"])["event"] != "wake.failed":
            pass
    assert (event["agent"], event["rung"]) == (name, "socket")
    assert event["why"].startswith("the session's inbox socket: ")
    wake = wake_of(mesh, name)
    assert (wake["armed"], wake["failed"]) == ([], {"socket": event["why"]})
    assert f"{name}: the socket rung failed: {event['why']}" in mesh.meshctl("status")
    assert client.texts() == ["hello"]


def test_a_session_is_woken_for_what_came_while_the_daemon_was_away(
    own: Home, own_session: Open, inbox: InboxSocket
) -> None:
    """It need not do anything for that."""
    own.start()
    knowing(own_session("alice", AGENT_MESH_NO_AUTOSTART="1", **variables(inbox.path)))
    kill_daemon(own)
    own.start()
    own.meshctl("send", "alice", "hello", "--from", "bob")
    assert "1 unread from bob: call mesh_inbox" in inbox.text(1)
    assert len(inbox.rings) == 1


def test_a_session_that_registered_a_channel_is_woken_by_it(mesh: Home, session: Open, name: str, peer: str) -> None:
    """A notification in the stream, with who and how many; no other session is offered the capability."""
    run = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[3:]))"
    command = (sys.executable, "-c", run, "--channels", "server:agent-mesh", *MESHCTL)
    client = knowing(session(name, command=command))
    assert client.answers["1"][0]["result"]["capabilities"]["experimental"] == {"claude/channel": {}}
    wait_until(lambda: wake_of(mesh, name)["armed"] == ["channel"], "it can be woken")
    mesh.meshctl("send", name, "SECRET words", "--from", peer)
    [told] = client.until(lambda: client.told, "a notification")
    assert told["method"] == "notifications/claude/channel"
    assert told["params"]["content"] == f"agent-mesh: 1 unread from {peer}: call mesh_inbox"
    assert client.texts() == ["SECRET words"]
