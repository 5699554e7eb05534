"""What answers in RESP and is no store: whatever it says, at whatever step, the daemon's connection outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.core.names import Keys
from meshd.core.wire import Outgoing
from meshd.errors import OutcomeUnknown, StoreDown, StoreError
from meshd.store import replies
from meshd.store.commands import Commands
from meshd.store.endpoint import Direct, from_url
from meshd.store.link import Link
from meshd.store.scripts import sending
from meshd.store.scripts.script import Invocation
from tests.helper import Store, a_home, eventually
from tests.store.servers import Fake, commands_in, is_up, trouble

KEYS = Keys("replies")
ids = itertools.count()


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def listed(parts: list[bytes]) -> bytes:
    return b"*%d\r\n%s" % (len(parts), b"".join(parts))


texts = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"OK", b"redis_version:7.2.4\r\nrole:master\r\n", b"redis_version:" + b"9" * 5000, b"1-1", b"\xff"]
    ),
    st.just(b"x" * 300_000),
)
plain = st.one_of(
    texts.map(bulk),
    st.integers(-(1 << 63), (1 << 63) - 1).map(lambda number: b":%d\r\n" % number),
    st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"+OK\r\n", b"+\xff\xfe\r\n", b"+\r\n"]),
    st.sampled_from([b"-ERR no\r\n", b"-MOVED\r\n", b"-MOVED x y\r\n", b"-NOSCRIPT x\r\n", b"-\xff\r\n", b"-\r\n"]),
    st.sampled_from([b"-LOADING x\r\n", b"-NOAUTH x\r\n", b"-WRONGTYPE x\r\n", b"-READONLY x\r\n", b"-NOPERM x\r\n"]),
)
answers = st.recursive(plain, lambda inner: st.lists(inner, max_size=6).map(listed), max_leaves=12)
# What is no RESP at all, or ends in the middle.
BROKEN = (b"HTTP/1.1 200 OK\r\n\r\n", b"$10\r\nxx", b"*3\r\n:1\r\n", b":x\r\n", b"$x\r\n", b"\x00\x01\r\n", b"")
broken = st.sampled_from(BROKEN)


class Liar:
    """A TCP server that passes everything on to a real store, but for some answers, and closes behind a broken one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lies: list[tuple[int, bytes]] = []  # number of the answer, from 0, and what is said in its place
        self.told = 0  # answers since then
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours, theirs = await asyncio.open_unix_connection(self._store.socket)
        try:
            while command := await _resp(reader):
                theirs.write(command)
                honest = await _resp(ours)
                lie = next((said for number, said in self.lies if number == self.told), None)
                self.told += 1
                writer.write(honest if lie is None else lie)
                await writer.drain()
                if lie in BROKEN:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for each in (writer, theirs):
                each.close()


async def _resp(reader: asyncio.StreamReader) -> bytes:
    """One value of RESP; empty at the end."""
    line = await reader.readline()
    if line[:1] == b"$" and (size := int(line[1:])) >= 0:
        return line + await reader.readexactly(size + 2)
    if line[:1] == b"*":
        for _ in range(max(0, int(line[1:]))):
            line += await _resp(reader)
    return line


def a_send() -> Invocation[sending.SendResult]:
    out = Outgoing(f"m{next(ids)}", "alice", "bob", "text", private=True)
    return sending.send(KEYS, out, sid="5d", floor=0, gate=sending.Gate(0, False), digest="0" * 16, ts=1.0)


@settings(max_examples=50)
@given(lies=st.lists(st.tuples(st.integers(0, 14), st.one_of(answers, broken)), min_size=1, max_size=4))
def test_commands_outlive_every_answer(server: Store, lies: list[tuple[int, bytes]]) -> None:
    """Whatever is said in place of some answers: a call ends with a result or an error of ours, what keeps the
    connection goes on, and once a store answers there it is up and a send goes out."""

    async def example() -> None:
        liar = Liar(server)
        async with liar.listening():
            commands = Commands(from_url(f"redis://127.0.0.1:{liar.port}", "replies"))
            liar.lies = lies
            running = asyncio.create_task(commands.run())
            try:
                await commands.known.wait()
                with contextlib.suppress(StoreError):
                    result = await commands.script(a_send(), timeout=0.3)
                    assert result.verdict == "sent"
                with contextlib.suppress(StoreError):
                    await commands.call("XRANGE", KEYS.inbox("bob"), "-", "+", read=replies.entries, timeout=0.3)
                if not commands.up.is_set():
                    assert commands.trouble is not None
                    assert commands.trouble.message.isprintable()
                liar.lies = []

                async def recovered() -> bool:
                    commands.check_now()
                    with contextlib.suppress(StoreError):
                        return bool((await commands.script(a_send(), timeout=0.5)).verdict == "sent")
                    return False

                async with asyncio.timeout(30):
                    while not await recovered():
                        assert not running.done()
                        await asyncio.sleep(0.01)
                assert commands.up.is_set()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    asyncio.run(example())


@settings(max_examples=50)
@given(which=st.sampled_from(["read", "probe", "sizes"]), said=answers, at=st.integers(0, 3))
def test_readers_get_entries_or_an_error(server: Store, which: str, said: bytes, at: int) -> None:
    """What a reader is given has the shape of entries, or it is an error of ours."""

    async def example() -> None:
        liar = Liar(server)
        async with liar.listening():
            link = await Link.open(from_url(f"redis://127.0.0.1:{liar.port}", "replies"))
            liar.told, liar.lies = 0, [(at if which == "probe" else 0, said)]
            try:
                if which == "read":
                    found = await link.read(KEYS.group, "0-0", 5, block=0.001)
                elif which == "probe":
                    info, found = await link.probe(KEYS.group, "0-0", 5)
                    assert (type(info.length), type(info.added), type(info.last)) == (int, int, str)
                else:
                    assert all(size.bytes == int(size.bytes) for size in await link.sizes(KEYS.group, "0-0", 5))
                    return
                for entry, raw in found:
                    assert [int(part) >= 0 for part in entry.split(b"-")] == [True, True]
                    assert raw is None or len(raw) % 2 == 0
            except StoreError:
                pass
            finally:
                await link.close()

    asyncio.run(example())


@settings(max_examples=40)
@given(said=st.one_of(answers, broken))
def test_connecting_ends_with_a_connection_or_an_error(server: Store, said: bytes) -> None:
    """The handshake of redis-py takes its answers apart by itself."""

    async def example() -> None:
        liar = Liar(server)
        async with liar.listening():
            for step in range(4):
                liar.told, liar.lies = 0, [(step, said)]
                with contextlib.suppress(StoreError):
                    await (await Link.open(from_url(f"redis://u:p@127.0.0.1:{liar.port}/1", "replies"))).close()

    asyncio.run(example())


@pytest.mark.parametrize("lie", [b":7\r\n", b"*1\r\n:1\r\n", b"$2\r\n\xff\xfe\r\n", b"$-1\r\n"])
def test_a_store_that_tells_nonsense_of_itself_is_down(lie: bytes, tmp_path: Path) -> None:
    """A daemon that is told a number, a list, no text or nothing for INFO runs, says so, and a send fails in time."""
    fake = Fake(lambda data: b"".join(lie if word == b"INFO" else b"+OK\r\n" for word in commands_in(data)))
    try:
        with a_home(tmp_path / "home", fake.url) as home:
            home.start()
            assert "not a Redis store" in trouble(home)
            failed = home.run("send", "bob", "x", "--from", "alice")
            assert failed.returncode == 4
            assert "next: " in failed.stderr
            assert not is_up(home)
            assert "Traceback" not in home.log()
            assert len(home.log().splitlines()) < 20, "one line a change, not one a try"
    finally:
        fake.close()


async def test_what_nobody_expected_is_told_and_tried_again(server: Store, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the program's own ends neither the task nor the daemon: its traceback is in the log, once."""
    changes: list[bool] = []
    faults = [ZeroDivisionError("a fault"), ZeroDivisionError("a fault")]

    def on_change(up: bool) -> None:
        changes.append(up)
        if up and faults:
            raise faults.pop()

    endpoint = from_url(server.url, "replies")
    assert isinstance(endpoint, Direct)
    commands = Commands(endpoint, on_change)
    running = asyncio.create_task(commands.run())
    try:
        with pytest.raises((StoreDown, OutcomeUnknown)):
            await commands.call("PING", timeout=0.01)
        await eventually(lambda: not faults, "it was tried again")
        await eventually(commands.up.is_set, "and is up")
        assert await commands.call("PING", timeout=5) == b"PONG"
        assert len([record for record in caplog.records if record.exc_info]) == 1
        assert changes[-1]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
