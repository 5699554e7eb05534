"""Stores that are more than one: Sentinel and Cluster. What a failover takes is told."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.faults.machines import Machine
from tests.faults.scenario import EXTERNAL, Stage, under_load, whole
from tests.faults.scene import RECOVERED, Scene, Setup, between
from tests.helper import Store, free_port, wait_until
from tests.store.servers import a_store

_GROUP = "mesh-main"
_SLOTS = 16384
_ASKED_AGAIN = 8.0  # seconds; a node gives up after 5


@contextlib.contextmanager
def at_url(stage: Stage, store: Store, url: str) -> Iterator[Scene]:
    """A scene whose machines find the store by this URL themselves."""
    with contextlib.ExitStack() as stack:
        machines = [Machine(label, stage.folder / label, store) for label in "ab"]
        for machine in machines:
            machine.home.env["AGENT_MESH_REDIS_URL"] = url
            stack.callback(machine.close)
        yield stack.enter_context(between(stage.folder, machines[0], machines[1], store, stage.seed, Setup()))


# --- Sentinel ---


class Sentinel:
    """A group of two servers, and a sentinel that needs nobody's agreement."""

    def __init__(self, folder: Path, servers: dict[int, Store]) -> None:
        self.servers = servers  # by their ports
        self.port = free_port()
        folder.mkdir()
        (folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {_GROUP} 127.0.0.1 {next(iter(servers))} 1\n"
            f"sentinel down-after-milliseconds {_GROUP} 700\n"
            f"sentinel failover-timeout {_GROUP} 1500\n"
        )
        with open(folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", str(folder / "sentinel.conf"), "--sentinel"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.client: Any = redis.Redis(port=self.port, protocol=2)

    def master(self) -> int:
        """Its port."""
        return int(self.client.sentinel_master(_GROUP)["port"])

    def is_whole(self) -> bool:
        """Whether the other one follows, and the sentinel knows it."""
        with contextlib.suppress(redis.RedisError):
            followers = self.client.sentinel_slaves(_GROUP)
            return bool(followers) and all(one["master-link-status"] == "ok" for one in followers)
        return False

    def wait_for_failover(self, scene: Scene, before: int) -> None:
        wait_until(lambda: self.master() != before, "the sentinel has failed over", RECOVERED)
        scene.use(self.servers[self.master()])

    def close(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _sentinel(stage: Stage) -> Iterator[tuple[Scene, Sentinel]]:
    ports = [free_port(), free_port()]
    options = (*Setup().options, "--repl-diskless-sync-delay", "0")
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(a_store(stage.kind, stage.folder / "one", *options, port=ports[0]))
        follows = (*options, "--replicaof", f"127.0.0.1 {ports[0]}")
        other = stack.enter_context(a_store(stage.kind, stage.folder / "other", *follows, port=ports[1]))
        group = Sentinel(stage.folder / "sentinel", {ports[0]: one, ports[1]: other})
        stack.callback(group.close)
        wait_until(group.is_whole, "the sentinel knows master and replica", RECOVERED)
        url = f"redis+sentinel://127.0.0.1:{group.port}/{_GROUP}"
        yield stack.enter_context(at_url(stage, one, url)), group


@whole("sentinel: failover asked for", rounds=2, short=1, long=20, stores=["redis"], kept=False)
def sentinel_asked(stage: Stage) -> None:
    with _sentinel(stage) as (scene, group):

        def act(scene: Scene) -> None:
            wait_until(group.is_whole, "the replica follows", RECOVERED)
            before = group.master()
            wait_until(lambda: _is_asked(group), "the sentinel fails over when asked", RECOVERED)
            group.wait_for_failover(scene, before)

        under_load(stage, scene, act)


def _is_asked(group: Sentinel) -> bool:
    """It refuses for a while after the last time."""
    with contextlib.suppress(redis.ResponseError):
        group.client.execute_command("SENTINEL", "FAILOVER", _GROUP)
        return True
    return False


@whole("sentinel: primary killed", rounds=2, short=0, long=20, stores=["redis"], kept=False)
def sentinel_killed(stage: Stage) -> None:
    with _sentinel(stage) as (scene, group):

        def act(scene: Scene) -> None:
            wait_until(group.is_whole, "the replica follows", RECOVERED)
            before = group.master()
            group.servers[before].kill()
            group.wait_for_failover(scene, before)
            group.servers[before].start()  # the sentinel makes it follow

        under_load(stage, scene, act)


@whole("sentinel: primary stopped, comes back", rounds=1, long=10, stores=["redis"], kept=False)
def sentinel_stopped(stage: Stage) -> None:
    """What it takes when it comes back, before it hears that it is none, is gone."""
    with _sentinel(stage) as (scene, group):

        def act(scene: Scene) -> None:
            wait_until(group.is_whole, "the replica follows", RECOVERED)
            before = group.master()
            group.servers[before].pause()
            group.wait_for_failover(scene, before)
            scene.rest(3)
            group.servers[before].resume()

        under_load(stage, scene, act)


# --- Cluster ---


class Nodes:
    """A cluster of three masters, of which one has the mesh's slot, and a replica of that one."""

    def __init__(self, stage: Stage, stack: contextlib.ExitStack) -> None:
        self.ports = [free_port() for _ in range(4)]
        options = (*Setup().options, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        options = (*options, "--repl-diskless-sync-delay", "0")
        self.nodes = [
            stack.enter_context(a_store(stage.kind, stage.folder / str(n), *options, port=port))
            for n, port in enumerate(self.ports)
        ]
        self.clients: list[Any] = [stack.enter_context(node.client()) for node in self.nodes]
        for number, client in enumerate(self.clients[:3]):
            first, last = number * _SLOTS // 3, (number + 1) * _SLOTS // 3 - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        slot = self.clients[0].execute_command("CLUSTER", "KEYSLOT", "{mesh}")
        self.master, self.replica = slot * 3 // _SLOTS, 3
        for client in self.clients[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.ports[0])
        everybody = range(len(self.nodes))
        wait_until(lambda: all("4" in self._info(n, "known_nodes") for n in everybody), "the nodes know each other", 60)
        self._id = self.clients[self.master].execute_command("CLUSTER", "MYID").decode()
        wait_until(self._follows, "the last is its replica", RECOVERED)
        wait_until(lambda: all("ok" in self._info(n, "state") for n in everybody), "the nodes agree", RECOVERED)

    def _info(self, node: int, what: str) -> str:
        info: bytes = self.clients[node].execute_command("CLUSTER", "INFO")
        lines = info.decode().splitlines()
        return next(line for line in lines if line.startswith(f"cluster_{what}:"))

    def _follows(self) -> bool:
        with contextlib.suppress(redis.ResponseError):  # it does not know that node yet
            self.clients[self.replica].execute_command("CLUSTER", "REPLICATE", self._id)
            return True
        return False

    def is_whole(self) -> bool:
        """Whether the master has its replica in step. Which is which is asked: nodes may have agreed anew."""
        with contextlib.suppress(redis.RedisError):
            pair = sorted((self.master, self.replica), key=lambda n: self._replication(n)["role"] == "slave")
            self.master, self.replica = pair
            said = self._replication(self.replica)
            is_master = self._replication(self.master)["role"] == "master"
            return bool(is_master and said["role"] == "slave" and said["master_link_status"] == "up")
        return False

    def _replication(self, node: int) -> dict[str, Any]:
        said: dict[str, Any] = self.clients[node].info("replication")
        return said

    def fail_over(self, scene: Scene) -> None:
        """Ask the replica to take over, again if the nodes do not agree on that in time."""
        for attempts_left in reversed(range(5)):
            self.clients[self.replica].execute_command("CLUSTER", "FAILOVER")
            try:
                wait_until(self._has_changed, "the replica has taken over", _ASKED_AGAIN)
            except AssertionError:
                if not attempts_left:
                    raise
            else:
                break
        self.wait_for_failover(scene)

    def wait_for_failover(self, scene: Scene) -> None:
        wait_until(self._has_changed, "the replica has taken over", RECOVERED)
        self.master, self.replica = self.replica, self.master
        scene.use(self.nodes[self.master])

    def _has_changed(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self._replication(self.replica)["role"] == "master")
        return False


@contextlib.contextmanager
def _cluster(stage: Stage) -> Iterator[tuple[Scene, Nodes]]:
    with contextlib.ExitStack() as stack:
        nodes = Nodes(stage, stack)
        url = ",".join(f"127.0.0.1:{port}" for port in nodes.ports)
        yield stack.enter_context(at_url(stage, nodes.nodes[nodes.master], f"redis+cluster://{url}")), nodes


@whole("cluster: CLUSTER FAILOVER", rounds=2, short=1, long=20, stores=EXTERNAL)
def cluster_failover(stage: Stage) -> None:
    """One that is asked for waits until the replica has all: nothing is lost."""
    with _cluster(stage) as (scene, nodes):

        def act(scene: Scene) -> None:
            wait_until(nodes.is_whole, "the replica follows", RECOVERED)
            nodes.fail_over(scene)

        under_load(stage, scene, act)


@whole("cluster: the slot's master killed", rounds=2, long=20, stores=EXTERNAL, kept=False)
def cluster_killed(stage: Stage) -> None:
    with _cluster(stage) as (scene, nodes):

        def act(scene: Scene) -> None:
            wait_until(nodes.is_whole, "the replica follows", RECOVERED)
            killed = nodes.nodes[nodes.master]
            killed.kill()
            nodes.wait_for_failover(scene)
            killed.start()

        under_load(stage, scene, act)
