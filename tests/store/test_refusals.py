"""What answers is no store, or one that will not have us: said plainly, waited for, and mended by itself."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshd.errors import ConfigError
from meshd.store.endpoint import from_url
from meshd.store.redaction import redacted
from tests.helper import Home, Store, a_home, free_port, wait_until
from tests.mesh.peer import texts
from tests.store.servers import Fake, a_store, commands_in, is_up, secret_is_nowhere, state, trouble

SECRET = "c0rrect-horse"


def loading(data: bytes) -> bytes:
    return b"-LOADING Redis is loading the dataset in memory\r\n" * len(commands_in(data))


def old(data: bytes) -> bytes:
    info = b"# Server\r\nredis_version:6.2.14\r\nprocess_id:1\r\n"
    answers = {b"INFO": b"$%d\r\n%s\r\n" % (len(info), info)}
    return b"".join(answers.get(command, b"+OK\r\n") for command in commands_in(data))


NO_STORE: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "a web server": (lambda data: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "not a Redis store"),
    "garbage": (lambda data: b"\x00\xff\xfe\r\n" * 10, "not a Redis store"),
    "silence": (lambda data: b"", "out of reach: no answer in time|does not answer"),
    "hangs up": (lambda data: None, "out of reach|no connection"),
    "loading for ever": (loading, "loading"),
    "too old": (old, "the store is redis 6.2.14"),
}


def test_what_is_no_store_is_told_apart(tmp_path: Path) -> None:
    """Whatever listens there: the daemon is up, `status` says what is wrong, a send fails inside its time with
    exit 4, and every answer has a next step."""
    with contextlib.ExitStack() as stack:
        homes: dict[str, Home] = {}
        for k, (case, (answer, _)) in enumerate(NO_STORE.items()):
            fake = Fake(answer)
            stack.callback(fake.close)
            homes[case] = stack.enter_context(a_home(tmp_path / f"h{k}", fake.url))
            homes[case].start()
        started = time.monotonic()
        sending = {case: home.begin("send", "bob", "x", "--from", "alice") for case, home in homes.items()}
        for case, process in sending.items():
            out, err = process.communicate(timeout=20)
            assert (case, process.returncode, out) == (case, 4, "")
            assert "next: " in err
        assert time.monotonic() - started < 10
        for case, home in homes.items():
            said = trouble(home)
            assert any(words in said for words in NO_STORE[case][1].split("|")), f"{case}: {said}"
            assert home.run("status").returncode == 4
            assert len(home.log().splitlines()) < 20, "one line a change, not one a try"


def test_a_password_is_asked_for_and_never_shown(tmp_path: Path) -> None:
    """Missing, wrong, right, by URL and by file: told apart from a store that is down, and shown nowhere."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        stack.enter_context(a_store("redis", tmp_path / "store", "--requirepass", "the-real-one", port=port))
        urls = {
            "missing": f"redis://127.0.0.1:{port}",
            "wrong": f"redis://:{SECRET}@127.0.0.1:{port}/0",
            "wrong by query": f"redis://127.0.0.1:{port}/0?password={SECRET}",
        }
        for case, url in urls.items():
            home = stack.enter_context(a_home(tmp_path / case, url))
            home.start()
            assert "password" in trouble(home)
            status = home.run("status")
            assert status.returncode == 4
            assert f"127.0.0.1:{port}" in status.stdout
            said = [status.stdout, home.meshctl("path"), home.run("doctor").stdout]
            with home.rpc() as rpc:
                said.append(json.dumps(rpc.answer("status")))
            if case == "wrong":
                said.append(home.run("register", "bob").stderr)
                assert "password" in said[-1]
            secret_is_nowhere(home, SECRET, *said)
        home = stack.enter_context(a_home(tmp_path / "file"))
        file = tmp_path / "url"
        file.write_text(f"redis://:the-real-one@127.0.0.1:{port}\n")
        home.env["AGENT_MESH_REDIS_URL_FILE"] = str(file)
        home.start()
        home.meshctl("register", "bob")
        home.meshctl("send", "bob", "x", "--from", "alice")
        wait_until(lambda: texts(home, "bob") == ["x"], "it is received")
        said = [home.meshctl("status"), home.meshctl("doctor"), home.log()]
        assert not [text for text in said if "the-real-one" in text]


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@host:port",
        f"redis://user:{SECRET}/x@host",
        f"redis://user:{SECRET}?x@host:1",
        f"redis://user:{SECRET}#x@host:1",
        f"redis://host:1/0?password={SECRET}@x",
        f"redis://u:{SECRET}@[::1",
        f"redis://:{SECRET}@host:1/0?socket_timeout=never",
        f"redis+sentinel://:{SECRET}@host:26379",
        f"redis+sentinel://:{SECRET}@host:no/mesh",
        f"redis+cluster://:{SECRET}@:7000",
        f"http://user:{SECRET}@host",
        f"{SECRET}",
        f"unix://user:{SECRET}@",
    ],
)
def test_a_password_in_a_url_that_is_wrong_is_not_shown(url: str) -> None:
    """However it is mistyped, the error does not repeat the secret or a piece of it."""
    pieces = (SECRET, SECRET.partition("-")[0], SECRET.partition("-")[2])
    said = [redacted(url)]
    try:
        said.append(from_url(url, "mesh").shown)
    except ConfigError as error:
        said += [error.message, error.hint]
    assert not [text for text in said for piece in pieces if piece in text]


def test_an_account_of_its_own(tmp_path: Path) -> None:
    """An ACL user with the mesh's keys and what it runs is enough; one that may not write is told so."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(a_store("redis", tmp_path / "store", port=port))
        commands = ["+@read", "+@write", "+@stream", "+@scripting", "+@connection", "+@transaction", "+info"]
        with store.client() as client:
            client.execute_command("ACL", "SETUSER", "mesh", "on", f">{SECRET}", "resetkeys", "~mesh:*", *commands)
            client.execute_command("ACL", "SETUSER", "poor", "on", f">{SECRET}", "~mesh:*", "+@connection", "+info")
        home = stack.enter_context(a_home(tmp_path / "home", f"redis://mesh:{SECRET}@127.0.0.1:{port}"))
        home.start()
        home.meshctl("register", "bob")
        home.meshctl("send", "bob", "x", "--from", "alice")
        home.meshctl("broadcast", "all", "--from", "alice")
        home.meshctl("ping", "bob")
        home.meshctl("who")
        wait_until(lambda: len(texts(home, "bob", peek=True)) == 2, "both are received")
        poor = stack.enter_context(a_home(tmp_path / "poor", f"redis://poor:{SECRET}@127.0.0.1:{port}"))
        poor.start()
        assert "access list" in trouble(poor)
        failed = poor.run("send", "bob", "x")
        assert failed.returncode == 4
        assert "access list" in failed.stderr
        secret_is_nowhere(poor, SECRET, failed.stderr, poor.run("status").stdout)


def test_a_read_only_replica(tmp_path: Path) -> None:
    """A replica is no place to write: `status` says so; once it is promoted the daemon goes on by itself."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        stack.enter_context(a_store("redis", tmp_path / "master", port=port))
        options = ("--replicaof", f"127.0.0.1 {port}")
        replica = stack.enter_context(a_store("redis", tmp_path / "replica", *options))
        home = stack.enter_context(a_home(tmp_path / "home", replica.url))
        home.start()
        assert "read-only replica" in trouble(home)
        failed = home.run("send", "bob", "x", "--from", "alice")
        assert failed.returncode == 4
        assert "read-only replica" in failed.stderr
        assert home.run("status").returncode == 4
        assert len(home.log().splitlines()) < 20, "one line a change, not one a try"
        with replica.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        wait_until(lambda: is_up(home), "it is found to be the master")
        home.meshctl("register", "bob")
        home.meshctl("send", "bob", "y", "--from", "alice")
        wait_until(lambda: texts(home, "bob") == ["y"], "what was not sent does not come, what was sent does")


def refuses(home: Home, word: str) -> None:
    """A send fails with exit 4, a word of the store's own and `not sent`."""
    failed = home.run("send", "bob", "refused", "--from", "alice")
    assert failed.returncode == 4
    assert word in failed.stderr
    assert "not sent" in failed.stderr


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_store_that_is_full(kind: str, tmp_path: Path) -> None:
    """OOM with noeviction: not sent, said so; what is there can still be read, and the daemon does not spin; room
    again, and it goes on."""
    with (
        a_store(kind, tmp_path / "store") as store,
        store.client() as client,
        a_home(tmp_path / "home", store.url) as home,
    ):
        home.start()
        home.meshctl("register", "bob")
        home.meshctl("send", "bob", "before", "--from", "alice")
        client.config_set("maxmemory", 1)
        wait_until(lambda: texts(home, "bob") == ["before"], "what was sent can be read")
        calls = client.info("stats")["total_commands_processed"]
        refuses(home, "maxmemory")
        assert client.info("stats")["total_commands_processed"] - calls < 500
        assert client.xlen("mesh:to_bob") == 1
        client.config_set("maxmemory", 0)
        home.meshctl("send", "bob", "after", "--from", "alice")
        wait_until(lambda: texts(home, "bob") == ["after"], "it goes on, and nothing that was refused comes")


def test_a_store_that_cannot_save(tmp_path: Path) -> None:
    """MISCONF: not sent, with the store's own words; it goes on when the disk does."""
    folder = tmp_path / "store"
    with (
        a_store("redis", folder, "--save", "3600 1", "--dbfilename", "dump.rdb") as store,
        store.client() as client,
        a_home(tmp_path / "home", store.url) as home,
    ):
        home.start()
        home.meshctl("register", "bob")
        (folder / "dump.rdb").mkdir()
        (folder / "dump.rdb" / "in the way").touch()
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the save failed")
        refuses(home, "MISCONF")
        (folder / "dump.rdb" / "in the way").unlink()
        (folder / "dump.rdb").rmdir()
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", "the save worked")
        home.meshctl("send", "bob", "after", "--from", "alice")
        wait_until(lambda: texts(home, "bob") == ["after"], "it goes on, and nothing that was refused comes")


def test_a_store_that_loads_for_long(tmp_path: Path) -> None:
    """A big log after a restart: `status` says that it is loading; then all that was there is received."""
    # The delay is for each command, and a server that loads answers after every 1024 of them.
    options = ("--appendonly", "yes", "--key-load-delay", "700")
    with a_store("redis", tmp_path / "store", *options) as store:
        with store.client() as client, client.pipeline(transaction=False) as pipe:
            for n in range(50):
                pipe.xadd("mesh:to_bob", {"from": "old", "msg": str(n), "ts": "1.5", "id": f"i{n}"})
            for n in range(6000):
                pipe.set("padding", n)
            pipe.execute()
        store.kill()
        with a_home(tmp_path / "home", store.url) as home:
            home.start()
            store.start()
            wait_until(lambda: "loading" in (state(home)["trouble"] or ""), "status says that it loads")
            wait_until(lambda: is_up(home), "it has loaded")
            assert texts(home, "bob") == [str(n) for n in range(50)]


def test_a_node_of_a_cluster_by_its_own_name(tmp_path: Path) -> None:
    """`redis://` to a node that sends us elsewhere: said, with what to write instead, and without haste."""
    port = free_port()
    options = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    with (
        a_store("redis", tmp_path / "store", *options, port=port) as store,
        store.client() as client,
        a_home(tmp_path / "home", store.url) as home,
    ):
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 100)
        home.start()
        failed = home.run("send", "bob", "x", "--from", "alice")
        assert failed.returncode == 4
        assert "next: " in failed.stderr
        assert len(home.log().splitlines()) < 60, "it is not tried without a pause"


def test_status_names_the_server(tmp_path: Path) -> None:
    """The version that `status` shows is the server's own."""
    with a_store("redis", tmp_path / "store") as store, a_home(tmp_path / "home", store.url) as home:
        home.start()
        wait_until(lambda: is_up(home), "a real one is taken")
        version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
        assert state(home)["server"].split()[1] in version


@pytest.mark.parametrize("kind", ["valkey", "redis"])
@pytest.mark.parametrize("rule", ["-xadd", "-evalsha"])
def test_an_account_that_may_not_use_a_command(kind: str, rule: str, tmp_path: Path) -> None:
    """Within a script, too, where some stores say it in other words."""
    with a_store(kind, tmp_path / "store") as store, a_home(tmp_path / "home", store.url) as home:
        home.start()
        home.meshctl("send", "bob", "x")
        with store.client() as client:
            client.execute_command("ACL", "SETUSER", "default", rule)
        refused = home.run("send", "bob", "y")
        assert refused.returncode == 4
        assert "the store's access list refuses this account" in refused.stderr
        assert "next: meshctl doctor" in refused.stderr
        assert home.run("status").stdout.startswith("does not work: the store refuses writes")


def test_a_send_that_was_refused_leaves_no_gap_in_the_count(home: Home, server: Store, prefix: str) -> None:
    """The receiver would be told of the loss of a message that never was."""
    home.start()
    home.meshctl("send", "carol", "first", "--from", "alice")
    stream = f"{prefix}:to_carol"
    with server.client() as client:
        client.rename(stream, f"{stream}.aside")
        client.set(stream, "no stream")
        assert "WRONGTYPE" in home.run("send", "carol", "refused", "--from", "alice").stderr
        client.rename(f"{stream}.aside", stream)
    home.meshctl("send", "carol", "second", "--from", "alice")
    home.meshctl("register", "carol")
    wait_until(lambda: len(texts(home, "carol", peek=True)) == 2, "both are received")
    assert "LOST" not in home.meshctl("inbox", "carol")
