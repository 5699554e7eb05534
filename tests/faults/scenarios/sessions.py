"""Clients that are killed in the middle of a call, and sessions of MCP whose daemon, gateway or store is."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.faults.history import Hosts, Intends, Outcome, Recorder
from tests.faults.readers import Reader
from tests.faults.scenario import Stage, whole
from tests.faults.scenarios.mail import Quiet
from tests.faults.scene import Scene, Setup, a_scene
from tests.helper import wait_until
from tests.shim.client import Client, McpError, clients_of
from tests.shim.daemon import kill_gateway

_SHOWN = re.compile(r"^\[(?:DIRECT|GROUP) from [^\]]+\] (\S+)$", re.MULTILINE)
_CALL = 60.0  # seconds in which a tool call is answered, whatever happens meanwhile


@whole("reading client killed in mid-call", rounds=10, short=6, long=60)
def reading_client_killed(stage: Stage) -> None:
    """`meshctl inbox` dies before, while or after it prints: what it did not print comes again."""
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        quiet = Quiet(scene)
        bob = quiet.reader("bob")
        quiet.host(bob)
        for _ in range(stage.rounds):
            quiet.send("alice", "bob", 5)
            client = scene.b.home.begin("inbox", "bob")
            scene.moment(0.0, 0.12)
            client.send_signal(signal.SIGKILL)
            bob.printed(_SHOWN.findall(client.communicate()[0]))
        quiet.settle(bob)
        stage.take(scene)


class Session(threading.Thread):
    """A session that sends one message after the other by its tool, each once: the shim repeats what it must."""

    def __init__(self, client: Client, name: str, history: Recorder) -> None:
        super().__init__(name=f"session {name}", daemon=True)
        self.client = client
        self.failed: list[str] = []
        self._name = name
        self._history = history
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        seq = 0
        while not self._stopping.wait(0.02):
            text = f"{self._name}-{seq}"
            self._history.write(Intends(self._name, "bob", text, seq))
            self._history.write(Outcome(text, *self._send(text)))
            seq += 1

    def _send(self, text: str) -> tuple[str, str]:
        try:
            request = self.client.begin("mesh_send", to="bob", message=text, private=True)
            reply = self.client.finish(request, _CALL)
        except (McpError, AssertionError, OSError) as error:
            return "unknown", type(error).__name__
        return ("unknown", reply.text[:100]) if reply.failed else ("sent", "")


@whole("MCP: gateway, daemon, store killed; shim stopped", rounds=6, short=4, long=24)
def mcp(stage: Stage) -> None:
    """Each `ok` of a tool is one message."""
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        Quiet(scene)  # its machines run
        bob = Reader("b", scene.b.home, "bob", scene.history, key="text")
        with bob.home.rpc() as rpc:
            rpc.call("register", name="bob")
        scene.history.write(Hosts("bob"))
        with _sessions(scene, stage.folder) as sessions:
            for number in range(stage.rounds):
                scene.flow(20)
                scene.moment()
                what = ("gateway", "daemon", "store", "shim")[number % 4]
                scene.history.note(f"{what}, round {number + 1}")
                _disturb(scene, sessions, what)
                scene.flow(5)
        scene.readers = [bob]
        scene.settle()
        stage.take(scene)


@contextlib.contextmanager
def _sessions(scene: Scene, folder: Path) -> Iterator[list[Session]]:
    names = ("api", "web")
    with clients_of(scene.a.home, *(folder / "projects" / name for name in names)) as clients:
        sessions = [Session(client, name, scene.history) for client, name in zip(clients, names, strict=True)]
        for session in sessions:
            session.client.initialize()
            session.start()
        try:
            yield sessions
        finally:
            for session in sessions:
                session.stop()
            for session in sessions:
                session.join(2 * _CALL)


def _disturb(scene: Scene, sessions: list[Session], what: str) -> None:
    if what == "gateway":
        kill_gateway(scene.a.home)
    elif what == "daemon":
        scene.a.home.kill()
        scene.a.home.start()
    elif what == "store":
        scene.store.kill()
        scene.store.start()
    else:
        session = scene.random.choice(sessions)
        session.client.pause()
        scene.rest(1)
        session.client.resume()


@whole("MCP: session killed in the middle of reading", rounds=3, long=20)
def mcp_reader_killed(stage: Stage) -> None:
    """A shim that is killed while it reads: what its client was not given is there for the next session."""
    with a_scene(stage.folder, stage.kind, stage.seed, Setup()) as scene:
        quiet = Quiet(scene)
        bob = quiet.reader("bob")
        quiet.host(bob)
        for number in range(stage.rounds):
            quiet.send("alice", "bob", 5)
            with clients_of(scene.b.home, stage.folder / "projects" / f"bob-{number}", AGENT_MESH_NAME="bob") as [
                client
            ]:
                client.initialize()
                request = client.begin("mesh_inbox")
                scene.moment(0.0, 0.1)
                client.kill()
                wait_until(lambda client=client: client.ended, "its output has ended")  # type: ignore[misc]
                bob.printed(_given(client, request))
        quiet.settle(bob)
        stage.take(scene)


def _given(client: Client, request: object) -> list[str]:
    """The ids in the answer, if there was one."""
    if not client.has(request):
        return []
    result = client.answer(request).get("result", {})
    return [message["id"] for message in result.get("structuredContent", {}).get("messages", [])]
