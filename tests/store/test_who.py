"""Who is there, in one round trip, whatever stands in the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from meshd.core.names import Keys
from meshd.errors import StoreError
from meshd.store.commands import Commands
from meshd.store.endpoint import from_url
from meshd.store.scripts.who import NAMES, who
from tests.helper import Store


@contextlib.asynccontextmanager
async def connected(server: Store) -> AsyncIterator[Commands]:
    commands = Commands(from_url(server.url, "mesh"))
    running = asyncio.create_task(commands.run())
    try:
        await commands.up.wait()
        yield commands
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_index_and_the_entries_come_together(server: Store, prefix: str) -> None:
    """Names held since the floor, with the entries of those that were asked for, in their order; thousands of them."""
    keys, names = Keys(prefix), [f"a{k}" for k in range(2500)]
    with server.client() as client:
        client.zadd(keys.presence, {name: 1000 + k for k, name in enumerate(names)})
        client.mset({keys.registry(name): f"entry of {name}" for name in names[::2]})
        async with connected(server) as commands:
            before = client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
            present = await commands.script(who(keys, floor=1500, names=names))
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1
            assert present.expires == {name: 1000.0 + k for k, name in enumerate(names) if k >= 500}
            assert present.entries == [b"" if k % 2 else f"entry of {name}".encode() for k, name in enumerate(names)]
            assert (await commands.script(who(keys, floor=9999, names=[]))) == ({}, [])
        client.delete(keys.presence, *map(keys.registry, names))


async def test_what_strangers_wrote_is_bounded(server: Store, prefix: str) -> None:
    """Names that are none, an entry of megabytes, a key of another type, an index without end."""
    keys = Keys(prefix)
    with server.client() as client:
        client.zadd(keys.presence, {"bob": 5, b"\xff": 6, "no name": 7, "x" * 70: 8, "inf": "inf"})
        client.set(keys.registry("bob"), b"x" * 5_000_000)
        client.rpush(keys.registry("list"), "x")
        async with connected(server) as commands:
            present = await commands.script(who(keys, floor=0, names=["bob", "list", "nobody"]))
            assert present.entries == [b"x" * (16 << 10), b"", b""]
            assert present.expires == {"bob": 5.0, "inf": float("inf")}
            client.zadd(keys.presence, {f"n{k}": 10 for k in range(NAMES + 100)})
            assert len((await commands.script(who(keys, floor=10, names=[]))).expires) <= NAMES
            client.delete(keys.presence)
            client.set(keys.presence, "x")
            with pytest.raises(StoreError, match="WRONGTYPE"):
                await commands.script(who(keys, floor=0, names=["bob"]))
            assert commands.up.is_set()
        client.delete(keys.presence, keys.registry("bob"), keys.registry("list"))


class _Full:
    """A disk of our own store that has no room."""

    def room(self) -> int:
        return 0

    def written(self) -> None:
        pass


async def test_a_store_without_room_still_tells_who_is_there(server: Store, prefix: str) -> None:
    """What only reads is not refused with what writes."""
    commands = Commands(from_url(server.url, "mesh"), disk=_Full())
    running = asyncio.create_task(commands.run())
    try:
        await commands.up.wait()
        assert await commands.script(who(Keys(prefix), floor=0, names=[])) == ({}, [])
        assert commands.refused is None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
