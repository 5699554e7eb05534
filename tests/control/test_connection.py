"""One connection of the control socket, on a real socket, with a handler of the test's."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshd.control.client import Client
from meshd.control.connection import Connection, Request
from meshd.errors import NotFound
from meshd.observing.background import Background
from meshd.receiving.handover import Handover
from tests.helper import eventually

Answer = dict[str, Any]
Ask = Callable[[str], Awaitable[Answer]]


@asynccontextmanager
async def connected(handler: Callable[[Connection, Request], Any]) -> AsyncIterator[tuple[Connection, Ask]]:
    """A connection, and a way to ask it something."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Connection(handler, lambda connection, request: False)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, ours)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)

    async def ask(method: str) -> Answer:
        writer.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}).encode() + b"\n")
        answer: Answer = json.loads(await reader.readline())
        return answer

    try:
        yield connection, ask
    finally:
        transport.close()
        writer.close()
        await writer.wait_closed()


async def test_a_call_whose_future_is_cancelled_under_it_is_not_answered_as_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only a client cancels its calls. Whatever else ends them is ours, and is in the log."""

    async def handler(connection: Connection, request: Request) -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.cancel)
        await future

    async with connected(handler) as (connection, ask):
        error = (await ask("confirm"))["error"]
        assert (error["code"], error["data"]["kind"]) == (-32603, "internal")
        assert connection.running == 0
    (record,) = caplog.records
    assert record.getMessage() == "confirm failed"
    assert record.exc_info is not None


async def test_a_call_that_its_client_cancels_is_answered_so(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(connection: Connection, request: Request) -> None:
        asyncio.get_running_loop().call_soon(connection.cancel, 1)
        await asyncio.get_running_loop().create_future()

    async with connected(handler) as (_, ask):
        error = (await ask("listen"))["error"]
        assert (error["code"], error["data"]["kind"]) == (-32800, "cancelled")
    assert caplog.records == []


async def test_what_fails_unexpectedly_is_internal_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(connection: Connection, request: Request) -> None:
        raise LookupError("no such thing")

    async with connected(handler) as (_, ask):
        error = (await ask("send"))["error"]
        assert (error["code"], error["data"]["kind"]) == (-32603, "internal")
        assert "no such thing" not in error["message"]
    assert [record.getMessage() for record in caplog.records] == ["send failed"]


class _Refusing(Handover):
    """Mail of an agent that is deregistered before it is confirmed."""

    def __init__(self) -> None:
        self.messages = []
        self.confirmed = self.released = 0

    async def confirm(self) -> None:
        self.confirmed += 1
        raise NotFound("bob was deregistered")

    def release(self) -> None:
        self.released += 1


async def handler(connection: Connection, request: Request) -> None:
    """Answers everything with nothing."""


async def test_mail_that_cannot_be_confirmed_any_more_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    background = Background(logging.getLogger("meshd.control"))
    async with connected(handler) as (connection, ask):
        client = Client(connection, background)
        connection.on_request.append(client.asks_again)
        handover = _Refusing()
        client.hand_over(handover, explicit=False)
        await ask("hello")  # asking for more says that what came before is taken
        await eventually(lambda: handover.confirmed, "it is confirmed")
        await background.join()
    assert caplog.records == []


async def test_a_client_that_went_without_reading_is_forgotten_with_its_mail() -> None:
    """What it was handed is unread again, and nothing looks at its socket, which is closed, any more."""
    async with connected(handler) as (connection, _):
        client = Client(connection, Background(logging.getLogger("meshd.control")))
        handover = _Refusing()
        client.hand_over(handover, explicit=False)
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connection.closed.append(lambda clean: closed.set_result(None))
        connection.transport.abort()
        await closed
        client.gone(clean=False)
        await eventually(lambda: connection.transport.get_extra_info("socket").fileno() == -1, "it is closed")
        client.asks_again()  # as the timer does that looks whether the client has taken it
        assert (handover.confirmed, handover.released) == (0, 1)
