"""Many connections at once: each costs little, and they do not keep the event loop from other work."""

from __future__ import annotations

import asyncio
import importlib.metadata
from typing import Any

import pytest

from meshd.store.endpoint import from_url
from meshd.store.link import Link
from meshd.store.slots import AT_ONCE
from tests.helper import Store


async def test_connections_share_what_they_say_of_the_library(server: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's metadata is read for none of them; the server is told its name all the same."""
    reads: list[str] = []
    version = importlib.metadata.version

    def read(name: str) -> str:
        reads.append(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", read)
    endpoint = from_url(server.url, "mesh")
    links = [await Link.open(endpoint) for _ in range(3)]
    try:
        assert reads == []
        assert len({id(link._connection.driver_info) for link in links}) == 1
        said = await links[0].call("CLIENT", "LIST", "ID", await links[1].call("CLIENT", "ID"))
        assert b"lib-name=redis-py" in said or b"lib-name" not in said  # Redis before 7.2 keeps none
    finally:
        for link in links:
            await link.close()


async def test_connections_wait_for_each_other_and_the_first_ones_do_not(server: Store) -> None:
    """A few at a time; what all others depend on goes before them; nobody is forgotten, whoever gives up."""
    endpoint = from_url(server.url, "mesh")
    real, going, most, gate = endpoint.connection, 0, 0, asyncio.Event()

    async def connection(bound: int = 1 << 20) -> object:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await gate.wait()
        going -= 1
        return await real(bound)

    endpoint.connection = connection  # type: ignore[assignment, method-assign]
    many = [asyncio.create_task(Link.open(endpoint)) for _ in range(3 * AT_ONCE)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert going == AT_ONCE
    urgent = asyncio.create_task(Link.open(endpoint, first=True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert going == AT_ONCE + 1
    for task in many[: AT_ONCE // 2]:
        task.cancel()  # some give up while they connect, some while they wait
    for task in many[-5:]:
        task.cancel()
    gate.set()
    links = [found for found in await asyncio.gather(urgent, *many, return_exceptions=True) if isinstance(found, Link)]
    assert len(links) == 1 + 3 * AT_ONCE - AT_ONCE // 2 - 5
    assert most == AT_ONCE + 1
    for link in links:
        await link.close()


async def test_a_connection_that_is_open_when_its_opener_is_cancelled_is_not_left_open(server: Store) -> None:
    """Between the moment in which it is open and the one in which its owner has it nothing is waited for."""
    endpoint = from_url(server.url, "mesh")
    real, made = endpoint.connection, list[Any]()

    async def connection(bound: int = 1 << 20) -> Any:
        one = await real(bound)
        connect = one.connect

        async def connect_and_be_cancelled() -> None:
            await connect()  # type: ignore[no-untyped-call]
            owner.cancel()

        one.connect = connect_and_be_cancelled  # type: ignore[method-assign]
        made.append(one)
        return one

    async def own() -> None:
        link = await Link.open(endpoint)
        try:
            await link.call("PING")
        finally:
            await link.close()

    endpoint.connection = connection  # type: ignore[method-assign]
    owner = asyncio.create_task(own())
    await asyncio.wait([owner])
    assert owner.cancelled()
    assert [one.is_connected for one in made] == [False]
