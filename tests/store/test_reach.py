"""Connecting to a store whose way has swallowed what was said first, and how soon what fails is tried again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
import redis

from meshd.core.backoff import Backoff
from meshd.errors import StoreBusy, StoreDown, StoreError
from meshd.store.connecting import reach
from meshd.store.endpoint import from_url
from meshd.store.link import Link
from meshd.store.refusals import Crowded, Unauthorized, longest_pause, translate
from tests.helper import Store
from tests.store.servers import Fake, commands_in

VERSION = b"redis_version:7.2.0\r\nrole:master\r\n"


class Swallowing:
    """A store behind a way that says nothing on its first connections, for ever."""

    def __init__(self, silent: int) -> None:
        self._numbers = itertools.count()
        self._mine = threading.local()
        self._silent = silent
        self.connections = 0

    def answer(self, data: bytes) -> bytes | None:
        if not hasattr(self._mine, "number"):
            self._mine.number = next(self._numbers)
            self.connections = self._mine.number + 1
        if self._mine.number < self._silent:
            return b""
        said = b""
        for command in commands_in(data):
            if command == b"INFO":
                said += b"$%d\r\n%s\r\n" % (len(VERSION), VERSION)
            elif command == b"SCRIPT":
                said += b"-ERR no scripts here\r\n"
            elif command in (b"CLIENT", b"SELECT"):
                said += b"+OK\r\n"
        return said


@pytest.fixture
def swallowing() -> Iterator[tuple[Swallowing, str]]:
    made = Swallowing(3)
    fake = Fake(made.answer)
    yield made, fake.url
    fake.close()


async def test_an_attempt_that_hangs_keeps_nobody_from_another(swallowing: tuple[Swallowing, str]) -> None:
    """The first three never end; what the fourth is told is the answer."""
    store, url = swallowing
    with pytest.raises(StoreError, match="no scripts here"):
        await reach(from_url(url, "mesh"), 1 << 20, timeout=60)
    assert store.connections >= 4


async def test_of_many_attempts_one_is_left(server: Store) -> None:
    """Its connection works, and no other is open."""
    link, found = await reach(from_url(server.url, "mesh"), 1 << 20, timeout=60)
    assert found.name in ("redis", "valkey")
    assert await link.call("PING") == b"PONG"
    await link.close()


async def _ping(url: str) -> None:
    link = await Link.open(from_url(url, "mesh"))
    await link.call("PING")


async def test_too_many_clients_are_not_made_more(own_limits: Store) -> None:
    """Who is not let in tries again in seconds, not in tenths: there may be a thousand of them."""
    with own_limits.client() as client:
        client.config_set("maxclients", 1)
        with pytest.raises(StoreDown) as met:
            await _ping(own_limits.url)
    # What it says before it hangs up cannot be read any more if that was before we had asked.
    assert isinstance(met.value, Crowded) or "while writing to socket" in met.value.message
    said = translate(redis.ConnectionError("max number of clients reached"))
    assert longest_pause(said) == Backoff().cap


@pytest.fixture
def own_limits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store("redis-server", tmp_path_factory.mktemp("limits"))
    yield store
    store.close()


@pytest.mark.parametrize(
    ("error", "soon"),
    [
        (StoreDown("cut"), True),
        (StoreBusy("loading"), True),
        (translate(redis.ConnectionError("reset")), True),
        (translate(TimeoutError()), True),
        (translate(redis.AuthenticationError("WRONGPASS")), False),
        (Unauthorized("no"), False),
        (StoreError("WRONGTYPE"), False),
    ],
    ids=str,
)
def test_what_was_cut_is_tried_soon_and_what_was_answered_is_not(error: StoreError, soon: bool) -> None:
    assert (longest_pause(error) < 1) == soon


async def test_a_sentinel_that_answered_is_asked_first(swallowing: tuple[Swallowing, str]) -> None:
    """One that is silent costs its time once, and not each connection."""
    silent, url = swallowing
    master = b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n"
    there = Fake(lambda data: b"".join(master if word == b"SENTINEL" else b"+OK\r\n" for word in commands_in(data)))
    try:
        hosts = ",".join(place.removeprefix("redis://") for place in (url, there.url))
        endpoint = from_url(f"redis+sentinel://{hosts}/service/0", "mesh")
        for _ in range(3):
            await endpoint.connection()
        assert silent.connections == 1
    finally:
        there.close()
