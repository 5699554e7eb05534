"""TLS, Sentinel and Cluster: the mesh over servers that are more than one, or that prove who they are."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.helper import Home, Store, a_home, free_port, wait_until
from tests.mesh.peer import texts
from tests.store.servers import a_store, is_up, trouble

PASSWORD = "s3ntinel-horse"


@contextlib.contextmanager
def a_sentinel(folder: Path, port: int, master: int, password: str) -> Iterator[Any]:
    """A sentinel that watches `mesh-main` and needs nobody's agreement."""
    folder.mkdir()
    (folder / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor mesh-main 127.0.0.1 {master} 1\n"
        f"sentinel auth-pass mesh-main {password}\n"
        "sentinel down-after-milliseconds mesh-main 700\n"
        "sentinel failover-timeout mesh-main 1500\n"
    )
    command = ["redis-server", str(folder / "sentinel.conf"), "--sentinel"]
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    client: Any = redis.Redis(port=port, protocol=2)

    def knows_all() -> bool:
        with contextlib.suppress(redis.ConnectionError):
            facts = client.sentinel_master("mesh-main")
            return int(facts["num-slaves"]) >= 1
        return False

    try:
        wait_until(knows_all, "the sentinel knows master and replica")
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


def sends_and_receives(home: Home, text: str) -> None:
    """A message and a broadcast go through, each once."""
    with home.rpc() as rpc:

        def sent() -> bool:
            return "result" in rpc.answer("send", target="bob", message=text, from_="alice", id=f"id-{text}")

        wait_until(sent, f"{text} is sent", 40)
        wait_until(
            lambda: "result" in rpc.answer("broadcast", message=f"all {text}", from_="alice", id=f"all-{text}"),
            f"all {text} is sent",
            40,
        )
    wait_until(lambda: len(texts(home, "bob", peek=True)) == 2, f"{text} and its broadcast are received")
    assert sorted(texts(home, "bob")) == sorted([text, f"all {text}"])


def test_sentinel_and_a_master_that_dies(tmp_path: Path) -> None:
    """The master is found through its sentinels, with its password; asked to fail over, and killed, the mesh goes
    on by itself with the other one; nothing comes twice."""
    ports = [free_port() for _ in range(3)]
    with contextlib.ExitStack() as stack:
        account = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--appendonly", "yes")
        master = stack.enter_context(a_store("redis", tmp_path / "a", *account, port=ports[0]))
        follow = ("--replicaof", f"127.0.0.1 {ports[0]}")
        replica = stack.enter_context(a_store("redis", tmp_path / "b", *account, *follow, port=ports[1]))
        sentinel = stack.enter_context(a_sentinel(tmp_path / "s", ports[2], ports[0], PASSWORD))
        nobody = free_port()
        url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{nobody},127.0.0.1:{ports[2]}/mesh-main/0"
        home = stack.enter_context(a_home(tmp_path / "home", url))
        home.start()
        wait_until(lambda: is_up(home), "the master is found")
        home.meshctl("register", "bob")
        sends_and_receives(home, "first")

        def is_master(port: int) -> bool:
            return int(sentinel.sentinel_master("mesh-main")["port"]) == port

        sentinel.execute_command("SENTINEL", "FAILOVER", "mesh-main")
        wait_until(lambda: is_master(ports[1]), "the sentinel has failed over", 30)
        sends_and_receives(home, "second")
        wait_until(lambda: int(sentinel.sentinel_master("mesh-main")["num-slaves"]) == 1, "the old one follows", 30)
        followers = wait_until(
            lambda: [s for s in sentinel.sentinel_slaves("mesh-main") if s["master-link-status"] == "ok"],
            "the old master has its data",
            30,
        )
        assert len(followers) == 1
        replica.kill()
        wait_until(lambda: is_master(ports[0]), "the sentinel has failed over again", 30)
        sends_and_receives(home, "third")
        assert master.process.poll() is None
        secret_is_nowhere_but_in_the_servers(home)


def secret_is_nowhere_but_in_the_servers(home: Home) -> None:
    """The servers of this test have it in their arguments; nothing of ours does."""
    said = [home.meshctl("status"), home.meshctl("doctor"), home.log()]
    assert home.daemon is not None
    said.append(Path(f"/proc/{home.daemon.pid}/cmdline").read_text())
    assert not [text for text in said if PASSWORD in text]


def test_a_sentinel_url_that_is_wrong_says_so(tmp_path: Path) -> None:
    """No sentinel answers, or it knows no such master: told apart in `status`."""
    ports = [free_port() for _ in range(3)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(a_store("redis", tmp_path / "a", port=ports[0]))
        dead = stack.enter_context(a_home(tmp_path / "dead", f"redis+sentinel://127.0.0.1:{ports[2]}/mesh-main"))
        dead.start()
        assert "no sentinel of" in trouble(dead)
        config = tmp_path / "sentinel.conf"
        config.write_text(f"port {ports[1]}\nbind 127.0.0.1\ndir {tmp_path}\n")
        process = subprocess.Popen(
            ["redis-server", str(config), "--sentinel"], stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            url = f"redis+sentinel://127.0.0.1:{ports[1]}/mesh-main"
            unknown = stack.enter_context(a_home(tmp_path / "unknown", url))
            unknown.start()
            wait_until(lambda: "no master named" in trouble(unknown), "status says it")
        finally:
            process.kill()
            process.wait()


def test_cluster(tmp_path: Path) -> None:
    """Three masters: all of the mesh is in one slot, found from any node; the prefix is `{mesh}` by itself."""
    ports = [free_port() for _ in range(3)]
    with contextlib.ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--appendonly", "yes", "--cluster-node-timeout", "2000")
        nodes: list[Store] = [
            stack.enter_context(a_store("redis", tmp_path / str(port), *options, port=port)) for port in ports
        ]
        clients = [stack.enter_context(node.client()) for node in nodes]
        for client, first in zip(clients, (0, 5461, 10923), strict=True):
            last = {0: 5460, 5461: 10922, 10923: 16383}[first]
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])

        def agree() -> bool:
            infos = [client.execute_command("CLUSTER", "INFO") for client in clients]
            return all(b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info for info in infos)

        wait_until(agree, "the nodes agree", 30)
        homes = [
            stack.enter_context(a_home(tmp_path / f"h{k}", f"redis+cluster://127.0.0.1:{port}"))
            for k, port in enumerate(ports[:2])
        ]
        for home in homes:
            home.start()
            wait_until(partial(is_up, home), "its node is found")
        one, other = homes
        with one.rpc() as rpc:
            assert rpc.call("status")["prefix"] == "{mesh}"
        one.meshctl("register", "bob")
        other.meshctl("register", "alice")
        other.meshctl("send", "bob", "hello", "--from", "alice", "--expect-reply")
        other.meshctl("broadcast", "all", "--from", "alice")
        assert other.meshctl("ping", "bob").startswith("pong from bob")
        assert other.run("register", "bob").returncode == 7
        asking = other.begin("request", "bob", "which?", "--from", "alice", "--timeout", "20")
        wait_until(lambda: len(texts(one, "bob", peek=True)) == 3, "all three are received")
        with one.rpc() as rpc:
            question = next(m for m in rpc.call("inbox", name="bob")["messages"] if m["text"] == "which?")
        one.meshctl("reply", question["id"], "main", "--from", "bob")
        assert asking.communicate(timeout=20)[0] == "main\n"
        assert {entry["agent"] for entry in one.json("who")["agents"]} == {"alice", "bob"}
        holding = [client for client in clients if client.dbsize()]
        assert len(holding) == 1
        assert all(key.startswith(b"{mesh}:") for key in holding[0].scan_iter())
        keeper = clients.index(holding[0])
        nodes[keeper].kill()
        wait_until(lambda: not is_up(one), "the loss of the node is noticed", 30)
        nodes[keeper].start()
        sends_and_receives(one, "back")


def test_a_cluster_needs_a_hash_tag(tmp_path: Path) -> None:
    """A prefix without one is refused at the start, naming the variable."""
    with a_home(tmp_path / "home", "redis+cluster://127.0.0.1:1", AGENT_MESH_PREFIX="mesh") as home:
        failed = home.run("up")
        assert failed.returncode == 3
        assert "AGENT_MESH_PREFIX" in failed.stderr
        assert "{mesh}" in failed.stderr


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certificates(folder: Path) -> None:
    """A CA of our own, and a certificate for 127.0.0.1 that it signed."""
    folder.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    ca = ("-addext", "keyUsage=critical,keyCertSign", "-subj", "/CN=a CA of ours")
    openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", *ca)
    openssl(folder, "req", *key[:5], "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl(folder, "x509", "-req", "-in", "server.csr", *sign, "-out", "server.crt")


def test_tls(tmp_path: Path) -> None:
    """`rediss://` with the CA that signed the server is up; without it, and in plain, it is refused and said."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificates to test with")
    certificates(tmp_path / "tls")
    files = {name: str(tmp_path / "tls" / name) for name in ("ca.crt", "server.crt", "server.key")}
    port = free_port()
    options = [
        *("--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no"),
        *("--tls-cert-file", files["server.crt"], "--tls-key-file", files["server.key"]),
        *("--tls-ca-cert-file", files["ca.crt"]),
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(a_store("redis", tmp_path / "store", *options))
        good = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={files['ca.crt']}"
        home = stack.enter_context(a_home(tmp_path / "good", good))
        home.start()
        wait_until(lambda: is_up(home), "the certificate is accepted")
        home.meshctl("register", "bob")
        sends_and_receives(home, "encrypted")
        assert f"rediss://127.0.0.1:{port}" in home.meshctl("status")
        for name, url in (("unsigned", f"rediss://127.0.0.1:{port}/0"), ("plain", f"redis://127.0.0.1:{port}/0")):
            refused = stack.enter_context(a_home(tmp_path / name, url))
            refused.start()
            said = trouble(refused)
            assert refused.run("status").returncode == 4
            assert name == "plain" or "certificate" in said.lower(), said
