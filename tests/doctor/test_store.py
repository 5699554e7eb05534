"""The store is wrong in each way there is: real servers with real faults; doctor names it, and its command mends it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.checkup import bad, checkup, cured, named
from tests.doctor.proxy import Change, Proxy, ahead, slow
from tests.helper import Home, Store, a_home, free_port, wait_until
from tests.store.servers import Fake, a_store, is_up, secret_is_nowhere, state
from tests.store.test_refusals import old

SECRET = "c0rrect-horse"


@pytest.fixture(params=["redis", "valkey"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store that this test may do everything to. Its log is on."""
    with a_store(request.param, tmp_path / "store", "--appendonly", "yes") as store:
        yield store


@pytest.fixture
def redis_only(tmp_path: Path) -> Iterator[Store]:
    with a_store("redis", tmp_path / "store", "--appendonly", "yes") as store:
        yield store


@pytest.fixture
def here(tmp_path: Path, own: Store) -> Iterator[Home]:
    with a_home(tmp_path / "here", own.url) as made:
        made.start()
        wait_until(lambda: is_up(made), "the store is up")
        assert bad(checkup(made)) == []
        yield made


@pytest.fixture
def there(tmp_path: Path, redis_only: Store) -> Iterator[Home]:
    with a_home(tmp_path / "there", redis_only.url) as made:
        made.start()
        wait_until(lambda: is_up(made), "the store is up")
        yield made


def configure(store: Store, **values: Any) -> None:
    with store.client() as client:
        for name, value in values.items():
            client.config_set(name.replace("_", "-"), value)


def locked(path: Path, port: int) -> contextlib.AbstractContextManager[Store]:
    """A store on a port, where accounts and passwords will count."""
    return a_store("redis", path / "s", "--appendonly", "yes", port=port)


# --- it is not there, or does not answer ---


def test_a_store_that_is_not_there(there: Home, redis_only: Store) -> None:
    """The command asks it; that is where its user sees that it must be started."""
    redis_only.kill()
    found = named(checkup(there), f"the store {redis_only.url} is out of reach")
    assert found["next"].startswith(f"redis-cli -s {redis_only.socket} ping")
    redis_only.start()
    wait_until(lambda: is_up(there), "the daemon has found it")
    assert bad(checkup(there)) == []


def test_a_store_that_is_stopped(there: Home, redis_only: Store) -> None:
    redis_only.pause()
    found = named(checkup(there), "was stopped by a signal")
    assert found["next"] == f"kill -CONT {redis_only.process.pid}"
    assert bad(cured(there, found)) == []


def test_a_store_and_a_daemon_that_are_stopped(there: Home, redis_only: Store) -> None:
    """Both are named, and doctor ends in time."""
    assert there.daemon is not None
    redis_only.pause()
    there.daemon.send_signal(signal.SIGSTOP)
    findings = checkup(there)
    for words in (f"meshd (pid {there.daemon.pid}) was stopped", f"(pid {redis_only.process.pid}) was stopped"):
        cured(there, named(findings, words))
    assert bad(checkup(there)) == []


def test_an_embedded_store_that_is_stopped(lone: Home) -> None:
    """Also when it outlived its daemon."""
    lone.meshctl("up")
    pid = lone.json("status")["store"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    found = named(checkup(lone), f"the store embedded (pid {pid}) was stopped by a signal")
    assert bad(cured(lone, found)) == []


def test_an_embedded_store_that_does_not_start(lone: Home) -> None:
    """With the server's own words, and its log for more."""
    manifest = lone.state / "store" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("this is no manifest\n")
    lone.start()
    wait_until(lambda: "does not start" in (state(lone)["trouble"] or ""), "the daemon knows")
    found = named(checkup(lone), "embedded store: the embedded store does not start")
    assert "manifest" in found["what"]
    assert found["next"] == f"tail -n 20 {lone.state}/store/valkey.log"
    manifest.unlink()
    wait_until(lambda: is_up(lone), "it starts")
    assert bad(checkup(lone)) == []


@pytest.mark.parametrize("answer", ["web server", "old"])
def test_what_is_no_store_that_we_can_use(home: Home, answer: str) -> None:
    fake = Fake(old if answer == "old" else lambda data: b"HTTP/1.1 400 Bad Request\r\n\r\n")
    home.env["AGENT_MESH_REDIS_URL"] = fake.url
    try:
        findings = checkup(home)
    finally:
        fake.close()
    if answer == "old":
        assert "redis 7.0 or newer is needed" in named(findings, "is redis 6.2.14")["what"]
    else:
        named(findings, "what answers there is not a Redis store")


@pytest.mark.parametrize("given", ["", f":{SECRET}@"])
def test_a_password_that_is_missing_or_wrong(tmp_path: Path, given: str) -> None:
    """Never shown; the command takes it from the keyboard into a file of its own."""
    port = free_port()
    url = f"redis://{given}127.0.0.1:{port}/0"
    with locked(tmp_path, port) as store, a_home(tmp_path / "home", url) as home:
        configure(store, requirepass="the-real-one")
        findings = checkup(home)
        found = named(findings, "wants a user name and a password")
        secret_is_nowhere(home, SECRET, str(findings), home.run("doctor").stdout)
        typed = f"printf %s redis://:the-real-one@127.0.0.1:{port}/0 > {tmp_path}/typed"
        mend = found["next"].replace("cat >", f"cat {tmp_path}/typed >")
        assert bad(cured(home, found | {"next": f"{typed}; {mend}"})) == []
        assert (home.config.parent / "redis-url").stat().st_mode & 0o777 == 0o600


# --- it would lose messages ---


def test_a_store_without_a_log(here: Home, own: Store) -> None:
    configure(own, appendonly="no")
    assert bad(cured(here, named(checkup(here), "keeps no append-only log", "warning"))) == []


def test_a_store_that_answers_before_its_log_is_synced(here: Home, own: Store) -> None:
    """Named, with what that can lose: a choice, and no fault."""
    configure(own, appendfsync="everysec")
    named(checkup(here), "the store's log (appendfsync everysec): if it is killed, ", "ok")
    configure(own, appendfsync="no")
    named(checkup(here), "the store's log (appendfsync no): if its machine loses its power, ", "ok")
    configure(own, appendfsync="always")
    assert "appendfsync" not in str(checkup(here))


def test_a_store_that_throws_keys_away(here: Home, own: Store) -> None:
    """Worth an error as soon as there is a limit of memory at which it would."""
    configure(own, maxmemory_policy="allkeys-lru")
    named(checkup(here), "throws keys away when it is full (maxmemory-policy allkeys-lru)", "warning")
    configure(own, maxmemory=1 << 30)
    assert bad(cured(here, named(checkup(here), "maxmemory-policy allkeys-lru"))) == []


# --- it refuses writes ---


def test_a_store_that_is_full(here: Home, own: Store) -> None:
    with own.client() as client:
        used = client.info("memory")["used_memory"]
    configure(own, maxmemory=int(used * 1.05))
    named(checkup(here), "the store is nearly full", "warning")
    configure(own, maxmemory=used // 2)
    assert bad(cured(here, named(checkup(here), " and refuses writes"))) == []
    here.meshctl("send", "bob", "x")


def test_a_store_that_cannot_save(tmp_path: Path) -> None:
    """MISCONF: a folder is where its dump should be."""
    folder = tmp_path / "store"
    options = ("--save", "3600 1", "--dbfilename", "dump.rdb", "--appendonly", "yes")
    with a_store("redis", folder, *options) as store, a_home(tmp_path / "home", store.url) as home:
        home.start()
        (folder / "dump.rdb").mkdir()
        (folder / "dump.rdb" / "in the way").touch()
        with store.client() as client:
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the save failed")
        found = named(checkup(home), "the store cannot save and refuses writes: ")
        assert "MISCONF" in found["what"]
        (folder / "dump.rdb" / "in the way").unlink()
        (folder / "dump.rdb").rmdir()
        ended = f"until redis-cli -s {store.socket} info persistence | grep -q bgsave_status:ok; do sleep 0.05; done"
        assert bad(cured(home, found | {"next": f"{found['next']}; {ended}"})) == []


def test_a_store_that_wants_more_replicas(here: Home, own: Store) -> None:
    configure(own, min_replicas_to_write=2)
    assert bad(cured(here, named(checkup(here), "it wants more replicas than the 0 that it has"))) == []


def test_a_read_only_replica(tmp_path: Path) -> None:
    """The command points to its master."""
    port = free_port()
    with a_store("redis", tmp_path / "master", "--appendonly", "yes", port=port):
        options = ("--replicaof", f"127.0.0.1 {port}")
        with a_store("redis", tmp_path / "replica", *options) as replica, a_home(tmp_path / "h", replica.url) as home:
            home.start()
            found = named(checkup(home), f"is a read-only replica of 127.0.0.1:{port}")
            assert bad(cured(home, found)) == []


def test_a_node_of_a_cluster(tmp_path: Path) -> None:
    """By its own name: the command writes the URL of the Cluster."""
    port = free_port()
    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--appendonly", "yes")
    with a_store("redis", tmp_path / "store", *options, port=port) as store:
        with store.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            ok = b"cluster_state:ok"
            wait_until(lambda: ok in client.execute_command("CLUSTER", "INFO"), "the Cluster is complete")
        with a_home(tmp_path / "home", f"redis://127.0.0.1:{port}") as home:
            assert bad(cured(home, named(checkup(home), "is a node of a Cluster"))) == []


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("~mesh:* +@all -xadd -evalsha", "does not let this account use evalsha, xadd"),
        ("~other:* +@all", "does not let this account use keys that begin with mesh:"),
        ("~mesh:* +@connection +info", "does not let this account use"),
    ],
)
def test_an_account_that_may_not_do_what_the_mesh_needs(tmp_path: Path, rules: str, words: str) -> None:
    """The command is the administrator's, and names account, commands and keys."""
    port = free_port()
    url = f"redis://mesh:{SECRET}@127.0.0.1:{port}"
    with locked(tmp_path, port) as store, a_home(tmp_path / "h", url) as home:
        with store.client() as client:
            client.execute_command("ACL", "SETUSER", "mesh", "on", f">{SECRET}", "resetkeys", *rules.split())
        home.start()
        findings = checkup(home)
        found = named(findings, words)
        assert " acl setuser mesh " in found["next"]
        assert SECRET not in str(findings)
        wait_until(lambda: bad(checkup(home, before=found["next"])) == [], "the daemon has found it out, too")


def test_an_account_with_the_mesh_s_own_keys_only_is_enough(tmp_path: Path) -> None:
    """No command that the mesh does not need is asked of the access list."""
    port = free_port()
    needed = ["+@read", "+@write", "+@stream", "+@scripting", "+@connection", "+@transaction", "+info"]
    url = f"redis://mesh:{SECRET}@127.0.0.1:{port}"
    with locked(tmp_path, port) as store, a_home(tmp_path / "h", url) as home:
        with store.client() as client:
            client.execute_command("ACL", "SETUSER", "mesh", "on", f">{SECRET}", "resetkeys", "~mesh:*", *needed)
        home.start()
        home.meshctl("register", "bob")
        assert bad(checkup(home)) == []


# --- it is slow, or its clock is wrong ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (slow(0.06), "the store is slow: a ping takes "),
        (ahead(5), "the store's clock is 5.0 s ahead of this machine's"),
        (ahead(-3600), "the store's clock is 3600.0 s behind this machine's"),
    ],
    ids=["slow", "ahead", "behind"],
)
def test_a_store_that_is_far_away_or_has_another_time(
    tmp_path: Path, redis_only: Store, change: Change, words: str
) -> None:
    proxy = Proxy(redis_only, change)
    try:
        with a_home(tmp_path / "home", proxy.url) as home:
            found = named(checkup(home), words, "warning")
            assert found["next"]
    finally:
        proxy.close()


def test_what_was_tried_is_gone_again(here: Home, own: Store) -> None:
    """Nothing is left in the store that would stay; what the mesh had is as it was."""
    here.meshctl("send", "bob", "x", "--from", "alice")
    with own.client() as client:
        before = sorted(client.keys("*"))
        checkup(here)
        assert sorted(client.keys("*")) == before
