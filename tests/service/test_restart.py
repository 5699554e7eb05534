"""Restarts while clients are at work: nothing is lost, nobody is refused, however the daemon was started before."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.helper import Home, wait_until
from tests.service.user_manager import UserManager
from tests.store.servers import is_up

SENDERS = 4


# A call that was under way when the daemon was stopped on purpose.
STOPPED = "the daemon was stopped before this was answered\n  next: meshctl status\n"


class Senders:
    """Clients that send one message after another, numbered. Unless told otherwise, they start no daemon themselves."""

    def __init__(self, home: Home, **variables: str) -> None:
        self.home = home
        self.variables = {"AGENT_MESH_NO_AUTOSTART": "1"} | variables
        self.sent: dict[str, int] = {f"s{k}": 0 for k in range(SENDERS)}
        self.failed: list[str] = []
        self._stop = threading.Event()

    def _send(self, name: str) -> None:
        while not self._stop.is_set() and not self.failed:
            text = f"{name} {self.sent[name]}"
            send = ("send", "bob", text, "--from", name, "--id", text.replace(" ", "-"))
            done = self.home.run(*send, **self.variables)
            if done.returncode == 4 and done.stderr == STOPPED and self.variables["AGENT_MESH_NO_AUTOSTART"] == "0":
                continue  # the same again, under its id
            if done.returncode != 0:
                self.failed.append(f"{text}: exit {done.returncode}: {done.stdout}{done.stderr}")
            else:
                self.sent[name] += 1

    @contextmanager
    def at_work(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._send, args=(name,)) for name in self.sent]
        for thread in threads:
            thread.start()
        try:
            wait_until(functools.partial(self.have_sent, dict.fromkeys(self.sent, 1)), "every client sends")
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def have_sent(self, wanted: dict[str, int]) -> bool:
        """Whether each of them has come so far, or there is no need to wait any longer."""
        return bool(self.failed) or all(self.sent[name] >= count for name, count in wanted.items())

    def check(self) -> None:
        """Each message is in the inbox, once, in the order in which its sender sent it."""
        assert not self.failed
        messages = self.home.json("inbox", "bob", "--limit", "10000")["messages"]
        for name, count in self.sent.items():
            received = [message["text"] for message in messages if message["from"] == name]
            assert received == [f"{name} {k}" for k in range(count)]
        agent = next(agent for agent in self.home.json("status")["agents"] if agent["name"] == "bob")
        assert agent["lost"] == 0


def test_restarts_under_load_lose_nothing_and_refuse_nobody(lone: Home) -> None:
    """Five times `meshctl service restart`, the store with it, while four clients send."""
    with UserManager(lone) as manager:
        manager.meshctl("service", "install")
        lone.meshctl("register", "bob")
        pids = {manager.pid}
        senders = Senders(lone)
        with senders.at_work():
            for _ in range(5):
                wanted = {name: count + 1 for name, count in senders.sent.items()}
                manager.meshctl("service", "restart")
                pids.add(manager.pid)
                wait_until(functools.partial(senders.have_sent, wanted), "they go on")
        assert len(pids) == 6
        senders.check()


def test_stopped_and_uninstalled_under_load_it_is_gone_and_nothing_is_lost(served: Home, manager: UserManager) -> None:
    """Who comes meanwhile starts the daemon again: after the end, by whatever is there then, and not in its midst."""
    manager.meshctl("register", "bob")
    senders = Senders(served, AGENT_MESH_NO_AUTOSTART="0")
    with senders.at_work():
        for _ in range(2):
            for action in ("install", "stop", "uninstall"):
                manager.meshctl("service", action)
                wanted = {name: count + 2 for name, count in senders.sent.items()}  # one begins after that, and ends
                if action == "uninstall":
                    assert (manager.pid, manager.show("LoadState")) == (0, "not-found")
                wait_until(functools.partial(senders.have_sent, wanted), "they go on")
    senders.check()


def test_a_daemon_started_by_hand_hands_over_to_the_service_under_load(served: Home, manager: UserManager) -> None:
    """Its clients find nobody for a moment, and then wait for the service; who waits for mail gets it."""
    manager.meshctl("register", "bob")
    manager.meshctl("register", "carol")
    with served.rpc() as rpc:
        hello = rpc.call("hello")
    assert hello["managed_by"] == "user"
    with manager.running("listen", "carol", "--timeout", "30") as listening:
        wait_until(lambda: "1" in [str(a["sessions"]) for a in served.json("status")["agents"]], "it waits")
        said = manager.meshctl("service", "install")
        ended = f"ended the daemon that was started by hand (pid {hello['pid']}); its agents go on with the service\n"
        assert ended in said
        served.meshctl("send", "carol", "hello", "--from", "alice")
        assert listening.end()[:2] == (0, "[DIRECT from alice] hello\n")
    with served.rpc() as rpc:
        assert rpc.call("hello")["managed_by"] == "systemd"
    assert {agent["name"] for agent in served.json("status")["agents"]} == {"bob", "carol"}


def test_the_service_takes_over_where_nobody_handed_over(served: Home, manager: UserManager) -> None:
    """`systemctl start` takes the path from the daemon that was started by hand: nobody can reach that one any more."""
    manager.meshctl("service", "install")
    manager.meshctl("service", "stop")
    served.start()
    assert served.daemon is not None
    served.meshctl("send", "bob", "hello", "--from", "alice")
    assert manager.ctl("start", "meshd.socket").returncode == 0
    assert served.meshctl("inbox", "bob", AGENT_MESH_NO_AUTOSTART="1") == "[DIRECT from alice] hello\n"
    assert served.daemon.wait(10) == 0
    assert manager.pid not in (0, served.daemon.pid)


def test_what_a_killed_daemon_left_is_in_nobodys_way(served: Home, manager: UserManager) -> None:
    served.start()
    served.meshctl("send", "bob", "hello", "--from", "alice")
    served.kill()
    assert os.path.exists(served.socket)
    assert "started by hand" not in manager.meshctl("service", "install")
    assert served.meshctl("inbox", "bob", AGENT_MESH_NO_AUTOSTART="1") == "[DIRECT from alice] hello\n"


def test_one_by_hand_on_another_socket_is_taken_over_too(served: Home, manager: UserManager) -> None:
    """As a job of cron has left it, that knew no XDG_RUNTIME_DIR: the same files, on another socket."""
    elsewhere = os.path.join(os.path.dirname(os.path.dirname(served.socket)), "elsewhere.sock")
    served.env["AGENT_MESH_SOCKET"] = elsewhere
    served.start()
    served.meshctl("send", "bob", "hello", "--from", "alice")
    del served.env["AGENT_MESH_SOCKET"]
    manager.meshctl("service", "install")
    assert served.daemon is not None
    assert served.daemon.wait(10) == 0
    assert served.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"


def test_one_by_hand_that_does_not_answer_is_named_and_left_alone(served: Home, manager: UserManager) -> None:
    """What hangs cannot be asked, and to kill it is its owner's business."""
    served.start()
    assert served.daemon is not None
    pid = served.daemon.pid
    served.daemon.send_signal(signal.SIGSTOP)
    try:
        done = manager.run("service", "install")
    finally:
        served.daemon.send_signal(signal.SIGCONT)
    assert done.returncode == 3
    assert done.stderr == (
        f"the daemon that was started by hand (pid {pid}) does not answer: timed out\n"
        f"  next: kill -9 {pid}, then repeat\n"
    )
    wait_until(lambda: is_up(served), "it has found its store again")
    assert served.json("status")["pid"] == pid
    assert manager.pid == 0


def test_a_service_that_cannot_start_is_replaced_by_hand_and_never_runs_beside(
    served: Home, manager: UserManager
) -> None:
    manager.meshctl("service", "install")
    manager.meshctl("service", "stop")
    manager.drop_in("ExecStart=", "ExecStart=/nowhere/python")
    done = manager.run("send", "bob", "hello")
    assert done.returncode == 0
    assert done.stderr.startswith("the service did not start, so meshd is started without it: systemd did not start ")
    with served.rpc() as rpc:
        assert rpc.call("hello")["managed_by"] == "user"
    assert {manager.show("ActiveState", unit) for unit in ("meshd.socket", "meshd.service")} <= {"inactive", "failed"}
    assert "removed" in manager.meshctl("service", "uninstall")
    assert manager.meshctl("inbox", "bob", "--peek", AGENT_MESH_NO_AUTOSTART="1") == "[DIRECT from cli] hello\n"
    manager.drop_in()
    assert "ended the daemon that was started by hand" in manager.meshctl("service", "install")
    assert manager.meshctl("inbox", "bob") == "[DIRECT from cli] hello\n"


def test_a_client_in_the_socket_of_a_service_that_fails_learns_why(served: Home, manager: UserManager) -> None:
    """Its connection wakes the service until the limit is reached; then the reason comes from the daemon itself."""
    manager.meshctl("service", "install")
    served.config.write_text("nonsense = 1\n")
    assert manager.ctl("restart", "meshd").returncode != 0
    done = manager.run("send", "bob", "hello")
    assert done.returncode == 3
    assert "unknown key 'nonsense'" in done.stderr
