"""A read that lasts: the same question again and again, and nothing that comes is missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from meshd.errors import StoreDown
from meshd.store.bounds import Budget
from meshd.store.endpoint import from_url
from meshd.store.idle import NOTHING, AskingAgain
from meshd.store.link import Link
from tests.helper import Store, eventually


@pytest.fixture
async def link(server: Store) -> AsyncIterator[Link]:
    made = await Link.open(from_url(server.url, "mesh"))
    yield made
    await made.close()


async def asked(server: Store, link: Link, times: int) -> None:
    """Until it has asked so often since now."""
    with server.client() as client:

        def reads() -> int:
            return int(client.info("commandstats").get("cmdstat_xread", {"calls": 0})["calls"])

        enough = reads() + times
        await eventually(lambda: reads() >= enough, "it asks again")


async def test_what_comes_after_nothing_is_read(server: Store, link: Link, prefix: str) -> None:
    """In whichever of its turns; the connection is as good as before."""
    stream, budget = f"{prefix}:to_bob", Budget(10)
    with server.client() as client:
        cursor = "0-0"
        for k in range(5):
            reading = asyncio.create_task(link.read(stream, cursor, budget, block=0.01, lasts=60))
            await asked(server, link, 3)
            at = client.xadd(stream, {"n": str(k)})
            assert await reading == [(at, [b"n", str(k).encode()])]
            assert await link.call("PING") == b"PONG"
            cursor = at.decode()
        client.delete(stream)


async def test_nothing_for_long_enough_is_told(server: Store, link: Link, prefix: str) -> None:
    assert await link.read(f"{prefix}:to_bob", "0-0", 1, block=0.01, lasts=0.05) == []
    assert await link.call("PING") == b"PONG"


async def test_an_end_while_it_asks_again_is_told(server: Store, link: Link, prefix: str) -> None:
    number = await link.call("CLIENT", "ID")
    reading = asyncio.create_task(link.read(f"{prefix}:to_bob", "0-0", 1, block=0.01, lasts=60))
    await asked(server, link, 3)
    with server.client() as client:
        client.client_kill_filter(_id=number)
    with pytest.raises(StoreDown):
        await reading


async def test_an_error_while_it_asks_again_is_told(server: Store, link: Link, prefix: str) -> None:
    """The stream becomes something else."""
    stream = f"{prefix}:to_bob"
    reading = asyncio.create_task(link.read(stream, "0-0", 1, block=0.01, lasts=60))
    await asked(server, link, 3)
    with server.client() as client:
        client.set(stream, "x")
        with pytest.raises(Exception, match="WRONGTYPE"):
            await reading
        client.delete(stream)
    assert await link.call("PING") == b"PONG"


class _Transport(asyncio.Transport):
    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol = protocol
        self.written: list[bytes] = []

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


class _Heard(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


@pytest.mark.parametrize(
    ("pieces", "questions", "heard"),
    [
        ([NOTHING, NOTHING], 2, b""),
        ([NOTHING, b"*1\r\n", NOTHING], 1, b"*1\r\n" + NOTHING),  # in a piece of its own it may be part of something
        ([NOTHING[:2], NOTHING[2:]], 0, NOTHING),
        ([NOTHING + b"*"], 0, NOTHING + b"*"),
    ],
)
def test_whatever_is_not_nothing_is_passed_on_whole(pieces: Sequence[bytes], questions: int, heard: bytes) -> None:
    inner = _Heard()
    transport = _Transport(inner)
    AskingAgain(transport, b"?", lambda: True)
    for piece in pieces:
        assert isinstance(transport.protocol, asyncio.Protocol)
        transport.protocol.data_received(piece)
    assert (transport.written, inner.data) == ([b"?"] * questions, heard)
    assert (transport.protocol is inner) == bool(heard)
