"""A password that is changed while the daemon runs: the new one stands in the URL's file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from meshd.store.connecting import reach
from meshd.store.endpoint import from_url
from meshd.store.refusals import Unauthorized
from tests.helper import Home, Store, a_home, wait_until
from tests.store.servers import a_store, is_up


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with a_store("redis", tmp_path / "store", "--appendonly", "yes") as made:
        yield made


def url(store: Store, password: str) -> str:
    return f"unix://:{password}@{store.socket}"


def rotate(store: Store, old: str | None, new: str) -> None:
    with redis.Redis(unix_socket_path=store.socket, protocol=2, password=old) as client:
        client.config_set("requirepass", new)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def test_the_account_is_read_again_when_it_is_refused(store: Store) -> None:
    """And nothing else of the URL: another place or prefix is another mesh."""
    rotate(store, None, "new")
    endpoint = from_url(url(store, "old"), "mesh")
    with pytest.raises(Unauthorized):
        await reach(endpoint, 1 << 20, timeout=60)

    async def elsewhere() -> str:
        return "redis://:new@127.0.0.1:1/5"

    endpoint.url_now = elsewhere
    with pytest.raises(Unauthorized):
        await reach(endpoint, 1 << 20, timeout=60)

    async def here() -> str:
        return url(store, "new")

    endpoint.url_now = here
    link, _ = await reach(endpoint, 1 << 20, timeout=60)
    assert await link.call("PING") == b"PONG"
    await link.close()


def test_a_running_daemon_goes_on_with_the_new_password(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(url(store, "one"))
    file.chmod(0o600)
    rotate(store, None, "one")
    with a_home(tmp_path / "home", AGENT_MESH_REDIS_URL_FILE=str(file)) as home:
        home.start()
        home.meshctl("register", "bob")
        rotate(store, "one", "two")
        wait_until(lambda: "password" in trouble(home), "it says what is wrong")
        file.write_text(url(store, "two"))
        wait_until(lambda: is_up(home), "it is let in again")
        home.meshctl("send", "bob", "hello", "--from", "alice")
        assert "hello" in home.meshctl("inbox", "bob")


def trouble(home: Home) -> str:
    with home.rpc() as rpc:
        return str(rpc.call("status")["store"]["trouble"])
