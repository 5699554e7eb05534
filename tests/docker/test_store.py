"""docker/redis.conf and docker/redis.acl with a real server, and a mesh on it with the account of a daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from tests.docker.secrets_made import setup
from tests.docker.test_compose import SERVICES
from tests.helper import Home, a_home, free_port, program, wait_until


class Account:
    """The server of the compose file on a port of its own, with one more user who may ask it everything."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.port = free_port()
        self.secrets = setup(folder / "docker", REDIS_PORT=str(self.port))
        self.url_file = self.secrets / "redis-url-host"
        self.password = self.url_file.read_text().split(":")[2].split("@")[0]
        acl = folder / "users.acl"
        acl.write_text((self.secrets / "users.acl").read_text() + "user test on nopass ~* &* +@all\n")
        config = (folder / "docker" / "redis.conf").read_text()
        replaced = config.replace("/run/secrets/users.acl", str(acl)).replace("dir /data", f"dir {folder}")
        replaced = replaced.replace("bind * -::*", "bind 127.0.0.1")
        assert replaced.count(str(folder)) == 2
        (folder / "redis.conf").write_text(f"{replaced}port {self.port}\n")
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen([program(kind), folder / "redis.conf"], stdout=log, stderr=log)
        wait_until(self._answers, f"the server answers: {(folder / 'log').read_text()}")

    def client(self, user: str | None = None, password: str | None = None) -> redis.Redis:
        # By default it asks seconds long again, also where the password is wrong.
        once = Retry(NoBackoff(), 0)
        return redis.Redis(port=self.port, username=user, password=password, protocol=2, retry=once)

    def _answers(self) -> bool:
        try:
            with self.client("test", "-") as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@pytest.fixture(scope="module", params=["redis", "valkey"])
def account(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    made = Account(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.process.terminate()
    made.process.wait()


def test_it_logs_what_it_is_given_and_never_evicts(account: Account) -> None:
    with account.client("test", "-") as client:
        found = client.config_get("append*", "save", "maxmemory-policy", "protected-mode")
    assert (found["appendonly"], found["appendfsync"], found["save"]) == ("yes", "everysec", "")
    assert (found["maxmemory-policy"], found["protected-mode"]) == ("noeviction", "yes")


def test_nobody_comes_in_without_the_password(account: Account) -> None:
    with account.client() as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    with account.client("mesh", "wrong") as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_the_health_check_pings_and_can_do_nothing_else(account: Account) -> None:
    with account.client("health", "health") as client:
        assert client.ping()
        for command in (("GET", "mesh:x"), ("INFO",), ("ACL", "WHOAMI"), ("SCAN", "0")):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)
    test = SERVICES["redis"]["healthcheck"]["test"]
    check = ["redis-cli", "-p", str(account.port), *test[2:]]
    assert subprocess.run(check, capture_output=True, text=True, check=True).stdout == "PONG\n"
    without = [word for word in check if word not in ("--user", "health", "--pass")]
    assert subprocess.run(without, capture_output=True).returncode != 0


@pytest.mark.parametrize(
    "line",
    ["FLUSHALL", "CONFIG GET *", "KEYS *", "SHUTDOWN", "GET other", "XADD other * a b", "ACL LIST", "CLIENT LIST"],
)
def test_a_daemon_s_account_reaches_the_mesh_s_keys_only(account: Account, line: str) -> None:
    with account.client("mesh", account.password) as client, pytest.raises(NoPermissionError):
        client.execute_command(*line.split())


def test_a_whole_mesh_works_with_that_account(account: Account, tmp_path: Path) -> None:
    """Everything that daemons say to the store is allowed: the server's own log of refusals stays empty."""
    with account.client("test", "-") as admin:
        admin.acl_log_reset()
    variables = {"AGENT_MESH_REDIS_URL_FILE": str(account.url_file)}
    with a_home(tmp_path / "one", **variables) as one, a_home(tmp_path / "two", **variables) as two:
        one.start()
        two.start()
        use(one, two)
        with account.client("test", "-") as admin:
            refused = {entry["object"] for entry in admin.acl_log()}
        for home in (one, two):
            told = home.meshctl("status") + home.log() + home.run("doctor").stdout
            assert account.password not in told
            assert home.daemon is not None
            seen = Path(f"/proc/{home.daemon.pid}")
            assert account.password not in (seen / "environ").read_text() + (seen / "cmdline").read_text()
    # redis-py introduces itself at each connection, and takes no for an answer.
    assert refused <= {"client|setinfo", "client"}


def use(one: Home, two: Home) -> None:
    one.meshctl("register", "alice", "--role", "asks")
    two.meshctl("register", "bob")
    one.meshctl("send", "bob", "hello", "--from", "alice", "--expect-reply")
    one.meshctl("broadcast", "to all", "--from", "alice")
    assert "hello" in two.meshctl("listen", "bob", "--timeout", "10")
    wait_until(lambda: "to all" in two.meshctl("inbox", "bob"), "the broadcast")
    two.meshctl("ack", "alice", "got it", "--from", "bob")
    assert "pong from bob" in one.meshctl("ping", "bob", "--from", "alice")
    asked = one.begin("request", "bob", "which?", "--from", "alice", "--timeout", "20")
    question = two.json("listen", "bob", "--timeout", "10")["message"]
    two.meshctl("reply", question["id"], "main", "--from", "bob")
    assert asked.communicate(timeout=20)[0] == "main\n"
    assert {entry["agent"] for entry in one.json("who")["agents"]} == {"alice", "bob"}
    one.meshctl("register", "bob", "--takeover")
    one.meshctl("deregister", "bob")
    assert one.run("status").returncode == 0
