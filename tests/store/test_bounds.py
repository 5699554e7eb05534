"""Bounds in bytes: of a reply, of a batch of entries, and of what a store takes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import redis

from meshd.settings import HARD_MESSAGE_LIMIT
from meshd.store.bounds import BOUND, Budget, TooLarge
from meshd.store.endpoint import from_url
from meshd.store.engine import LARGEST_VALUE
from meshd.store.link import Link
from meshd.store.waits import Waiters
from tests.helper import Home, Store

ROOT = Path(__file__).parent.parent.parent


async def ids(link: Link, stream: str, budget: Budget) -> list[str]:
    """Ids of what can be read from the beginning of a stream, as a reader does it; too large ones with a sign."""
    found, cursor = [], "0-0"
    while True:
        try:
            raw = await link.read(stream, cursor, budget, block=0.01)
        except TooLarge:
            link = await Link.open(from_url(f"unix://{link._connection.path}", "mesh"))  # type: ignore[attr-defined]
            sizes = await link.sizes(stream, cursor, budget.most)
            if budget.known([size.bytes for size in sizes]):
                continue
            cursor = sizes[0].id
            found.append(f"!{cursor}")
            continue
        if not raw:
            await link.close()
            return found
        assert sum(len(part) for _, fields in raw for part in fields or []) < BOUND
        found += [at.decode() for at, _ in raw]
        cursor = found[-1]


async def test_entries_that_are_too_large_are_passed_over_unread(server: Store, prefix: str) -> None:
    """Whatever stands beside them is read, in order, and what is too large is known by its id."""
    stream = f"{prefix}:to_bob"
    expected = []
    with server.client() as client:
        for k in range(60):
            large = k in (0, 7, 8, 59)
            for text in [b"x" * 9_000_000] * 4 if large else [b"small"] * 20:
                fields = {f"f{n}": text for n in range(4)} if large else {"msg": text}
                expected.append(("!" if large else "") + client.xadd(stream, fields).decode())
                if large:
                    break
    link = await Link.open(from_url(server.url, "mesh"))
    try:
        assert await ids(link, stream, Budget(500)) == expected
    finally:
        with server.client() as client:
            client.delete(stream)


def test_a_reader_beside_huge_entries_stays_small(server: Store, prefix: str) -> None:
    """Entries of 100 MB in its stream, more of them than its memory has: they are never there."""
    stream = f"{prefix}:to_bob"
    program = (
        "import asyncio, re, sys\n"
        "from tests.store.test_bounds import *\n"
        "async def main():\n"
        "    link = await Link.open(from_url(sys.argv[1], 'mesh'))\n"
        "    found = await ids(link, sys.argv[2], Budget(500))\n"
        "    print(len(found), sum(name[0] == '!' for name in found))\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "asyncio.run(main())\n"
    )
    with server.client() as client:
        for _ in range(3):
            client.xadd(stream, {"msg": "small"})
            client.xadd(stream, {"msg": b"x" * 100_000_000})
        try:
            done = subprocess.run(
                [sys.executable, "-c", program, server.url, stream],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            client.delete(stream)
    counts, kilobytes = done.stdout.splitlines()
    assert counts == "6 3"
    assert int(kilobytes) < 200 << 10


def test_a_budget_follows_the_sizes() -> None:
    """Large batches make the next one smaller, small ones let it grow again, and one entry is the least."""
    budget = Budget(500)
    assert budget.count == 1  # nobody knows how large the first ones are
    budget.took([])
    assert budget.count == 500
    budget.took([(b"1-1", [b"m", b"x" * 50_000])] * 500)
    assert budget.count == 250
    budget.took([(b"1-1", [b"m", b"x" * 5_000_000])] * 3)
    assert budget.count == 1
    for _ in range(100):
        budget.took([(b"1-1", [b"m", b"x"])] * budget.count)
    assert budget.count == 500
    assert budget.known([2_000_000] * 10)
    assert budget.count == 2
    assert budget.known([10_000_000])
    assert budget.count == 1
    assert not budget.known([100_000_000, 1])
    assert budget.known([])


async def test_a_wait_is_not_ended_by_what_is_too_large(server: Store, prefix: str) -> None:
    """A stranger's entry of many megabytes before the answer."""
    stream = f"{prefix}:pong"
    with server.client() as client:
        client.xadd(stream, {f"f{n}": b"x" * 9_000_000 for n in range(4)})
        client.xadd(stream, {"from": "bob"})
        waiters = Waiters(from_url(server.url, "mesh"))
        found = await waiters.first(stream, 30, lambda raw: list(raw) if b"bob" in raw else None)
        await waiters.close()
        client.delete(stream)
    assert found == [b"from", b"bob"]


def test_the_store_of_docker_has_the_same_bound() -> None:
    """It stands there as a number."""
    lines = (ROOT / "docker" / "redis.conf").read_text().splitlines()
    assert f"proto-max-bulk-len {LARGEST_VALUE}" in lines


def test_the_embedded_store_takes_no_value_larger_than_a_message(lone: Home) -> None:
    """A raw client that sends one is cut off; the largest message goes through, and what was there before stays."""
    lone.start()
    lone.meshctl("register", "bob")
    path = str(Path(lone.socket).with_name("meshd.store"))
    with redis.Redis(unix_socket_path=path) as client:
        client.set("mesh:largest", b"x" * LARGEST_VALUE, ex=60)
        client.config_set("proto-max-bulk-len", 10 * LARGEST_VALUE)
        client.set("mesh:before", b"x" * (2 * LARGEST_VALUE), ex=60)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(path)
        raw.sendall(b"*1\r\n$4\r\nPING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"
    assert lone.stop() == 0
    lone.start()
    with redis.Redis(unix_socket_path=path) as client:
        assert client.strlen("mesh:before") == 2 * LARGEST_VALUE
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(path)
        raw.sendall(b"*3\r\n$3\r\nSET\r\n$5\r\nmesh:\r\n$%d\r\n" % (LARGEST_VALUE + 1))
        assert b"invalid bulk length" in raw.recv(1000)
        assert raw.recv(1000) == b""
    assert LARGEST_VALUE > HARD_MESSAGE_LIMIT
