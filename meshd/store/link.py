"""One connection to the store, with its errors turned into ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import hiredis
from redis import exceptions as rx
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from meshd.core.inbox import StreamInfo
from meshd.errors import StoreBusy, StoreDown, StoreError
from meshd.store.endpoint import BLOCK, CONNECT_TIMEOUT, SOCKET_TIMEOUT, Endpoint

# Replies that mean "not now": the command did nothing, and the same one may succeed later. redis-py has a
# class for some of them and cuts their first word off; the others are known by that word.
_BUSY = (rx.OutOfMemoryError, rx.ClusterDownError, rx.TryAgainError)
_BUSY_WORDS = ("MISCONF", "NOREPLICAS", "BUSY", "LOADING", "OOM", "CLUSTERDOWN", "TRYAGAIN")
# What an access list forbids within a script comes without a code of its own, Redis 7.0 and then newer ones; and EXEC.
_FORBIDDEN_WITHIN = (
    "The user executing the script can't",
    "ACL failure in script",
    "Transaction discarded because of: NOPERM",
)
# Replies that mean "not here": ask the endpoint again.
_ELSEWHERE = (rx.MovedError, rx.AskError, rx.MasterDownError)

RawEntries = list[tuple[bytes, list[bytes] | None]]


class Moved(StoreBusy):
    """This server is not the one that takes our writes (any more)."""


class Unauthorized(StoreDown):
    """It wants an account, or refuses ours."""


class Forbidden(StoreError):
    """The account that we use may not do this."""


def translate(error: BaseException) -> StoreError:
    """A redis-py error as ours: a sentence, and what to do next."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, rx.BusyLoadingError):
        return StoreBusy("the store is loading its data", "it will answer when it has; nothing is needed")
    if isinstance(error, rx.AuthenticationError | rx.AuthorizationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        return Unauthorized(
            "the store wants a user name and a password, or refuses the ones given",
            "put them into the URL (redis://USER:PASSWORD@HOST), best through AGENT_MESH_REDIS_URL_FILE",
        )
    if isinstance(error, rx.NoPermissionError) or text.startswith(_FORBIDDEN_WITHIN):
        what = f"the store's access list refuses this account: {text}"
        return Forbidden(what, "meshctl doctor names what is to be granted")
    if isinstance(error, rx.ReadOnlyError):
        return Moved("the store is a read-only replica", "point redis_url at the master, or use redis+sentinel://")
    if isinstance(error, _ELSEWHERE):
        return Moved(f"the store sends us elsewhere: {text}", "use redis+cluster:// or redis+sentinel://")
    if isinstance(error, _BUSY) or text.split(" ", 1)[0] in _BUSY_WORDS:
        return StoreBusy(f"the store refuses writes for now: {text}", "meshctl doctor names what mends it")
    if isinstance(error, rx.TimeoutError | TimeoutError):
        return StoreDown("the store does not answer in time", "is it stopped or overloaded?")
    if isinstance(error, ResponseError):
        return StoreError(f"the store refused: {text}", "is it Redis 7.0+ or Valkey 7.2+?")
    if isinstance(error, rx.ConnectionError | OSError):
        return StoreDown(f"no connection to the store: {text}", "start it; the mesh goes on by itself")
    # hiredis raises its own error for a peer that does not speak the protocol.
    return StoreDown(f"what answers there is not a Redis store: {text}", "correct redis_url")


class Link:
    """An open connection. After any `StoreDown` or `Moved` it is closed, and a new one is needed."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Link:
        """Connect, authenticate, select. Raises `StoreError`."""
        connection = await endpoint.connection()
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            raise _translate_connect(error, endpoint.shown) from None
        return cls(connection)

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)

    async def call(self, *command: Any, timeout: float = SOCKET_TIMEOUT) -> Any:
        """One command, one reply. A reply that is an error is raised as `StoreError`."""
        (reply,) = await self.batch([command], timeout=timeout)
        if isinstance(reply, StoreError):
            raise reply
        return reply

    async def batch(self, commands: Sequence[Iterable[Any]], *, timeout: float = SOCKET_TIMEOUT) -> list[Any]:
        """Several commands in one write. Replies in order, an error reply as a `StoreError` value.

        Raises `StoreDown` when the connection broke: then any of the commands may have been carried out.
        """
        connection = self._connection
        replies: list[Any] = []
        try:
            self._check_open()
            # hiredis packs in C; redis-py's own packing is a third of the cost of a send.
            packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])
            # One clock for the batch, and none of redis-py's: its own `timeout` gives None for a late reply, and
            # the next command would then be answered with it.
            async with asyncio.timeout(timeout):
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        replies.append(error if isinstance(error, NoScriptError) else translate(error))
        except (RedisError, OSError, TimeoutError) as error:
            await self.close()
            raise translate(error) from None
        except asyncio.CancelledError:
            # Half a reply may be on the wire: the connection cannot be used again.
            await self.close()
            raise
        return replies

    def _check_open(self) -> None:
        """Raises `ConnectionError` if the connection was lost: asyncio before 3.13.1 falls over a write to it."""
        writer = self._connection._writer
        if writer is not None and writer.transport.is_closing():
            raise rx.ConnectionError("the connection was lost")

    async def read(self, stream: str, cursor: str, count: int, *, block: float = BLOCK) -> RawEntries:
        """Entries behind the cursor, waiting up to `block` seconds for the first. Empty when none came."""
        milliseconds = max(1, int(block * 1000))
        reply = await self.call("XREAD", "COUNT", count, "BLOCK", milliseconds, "STREAMS", stream, cursor)
        return _entries(reply)

    async def probe(self, stream: str, cursor: str, count: int) -> tuple[StreamInfo, RawEntries]:
        """The stream's counts and what is behind the cursor, at one moment (MULTI)."""
        replies = await self.batch(
            [("MULTI",), ("XINFO", "STREAM", stream), ("XREAD", "COUNT", count, "STREAMS", stream, cursor), ("EXEC",)]
        )
        for reply in replies:  # the first error is the reason, EXEC's only says that there was one
            if isinstance(reply, StoreError):
                raise reply
        info, entries = replies[-1]
        if isinstance(entries, RedisError):
            raise translate(entries)
        if isinstance(info, RedisError):
            if "no such key" in str(info):
                return StreamInfo(), []
            raise translate(info)
        return _info(info), _entries(entries)


def _translate_connect(error: BaseException, shown: str) -> StoreError:
    ours = translate(error)
    if ours.message.startswith("no connection") or ours.message.startswith("the store does not"):
        return StoreDown(f"the store {shown} is out of reach: {str(error) or 'no answer in time'}", ours.hint)
    return ours


def _entries(reply: Any) -> RawEntries:
    if not reply:
        return []
    return [(entry_id, fields) for entry_id, fields in reply[0][1]]


def _info(reply: list[Any]) -> StreamInfo:
    facts: dict[bytes, Any] = dict(zip(reply[::2], reply[1::2], strict=True))
    return StreamInfo(
        length=facts[b"length"],
        # Missing before 7.0 and on some stores that speak the protocol: then loss cannot be counted.
        added=facts.get(b"entries-added", facts[b"length"]),
        last=facts[b"last-generated-id"].decode(),
    )
