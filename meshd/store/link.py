"""One connection to the store, with its errors turned into ours."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import hiredis
from redis import exceptions as rx
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from meshd.core.inbox import StreamInfo
from meshd.core.text import one_line
from meshd.errors import StoreError
from meshd.store import replies
from meshd.store.bounds import BOUND, Budget, TooLarge
from meshd.store.endpoint import CONNECT_TIMEOUT, Endpoint
from meshd.store.idle import AskingAgain
from meshd.store.pulse import BLOCK, Pulse
from meshd.store.refusals import translate
from meshd.store.replies import Garbled, RawEntries
from meshd.store.scripts.leases import counts
from meshd.store.scripts.peeking import Size, sizes

log = logging.getLogger("meshd.store")

LONGEST = 20.0  # seconds for a reply that takes its time but is on its way


class Link:
    """An open connection. After `StoreDown`, `Redirected` or `TooLarge` it is closed, and a new one is needed."""

    def __init__(self, connection: AbstractConnection, pulse: Pulse) -> None:
        self._connection = connection
        self._pulse = pulse
        # redis-py has no public way to its parser; with another one no reply is seen to be on its way.
        self._parser = getattr(connection, "_parser", None)
        self.asked = 0.0  # the event loop's time of the last question that `read` put

    @classmethod
    async def open(cls, endpoint: Endpoint, *, first: bool = False, bound: int = BOUND) -> Link:
        """Connect, authenticate, select. Raises `StoreError`.

        Many that connect at once wait for each other; not who comes `first`. `bound`: bytes of a reply.
        """
        async with endpoint.slots.turn(first=first):
            connection = await endpoint.connection(bound)
            try:
                async with endpoint.pulse.wait(2 * CONNECT_TIMEOUT):
                    await connection.connect()  # type: ignore[no-untyped-call]
            except Exception as error:
                await _disconnect(connection)
                raise _translate_connect(_expected(error), endpoint.shown) from None
            except BaseException:
                await _disconnect(connection)
                raise
        return cls(connection, endpoint.pulse)

    async def close(self) -> None:
        await _disconnect(self._connection)

    async def call(self, *command: Any, timeout: float | None = None) -> Any:
        """One command, one reply, as `batch` does it. A reply that is an error is raised as `StoreError`."""
        (reply,) = await self.batch([command], timeout=timeout)
        if isinstance(reply, StoreError):
            raise reply
        return reply

    async def _ask_on(self, lasts: float, *command: Any) -> Any:
        """The reply to a command that blocks, asked again while it is "nothing", for so many seconds."""
        time = asyncio.get_running_loop().time
        until = time() + lasts
        asking: AskingAgain | None = None
        connection, question = self._connection, hiredis.pack_command(command)
        try:
            self._check_open()
            async with self._pulse.wait(LONGEST, self._came) as wait:

                def again() -> bool:
                    # After a stall somebody has to look: what came meanwhile may have pushed out something else.
                    now = time()
                    if now >= until or now - wait.asked > BLOCK + 1:
                        return False
                    wait.again()
                    return True

                await connection.send_packed_command(question, check_health=False)
                if lasts and (transport := self._transport) is not None:
                    asking = AskingAgain(transport, question, again)
                try:
                    reply = await connection.read_response()
                except ResponseError as error:
                    raise translate(error) from None
                finally:
                    self.asked = wait.asked
                    if asking is not None:
                        asking.end()
        except StoreError as error:
            if isinstance(error, TooLarge):
                await self.close()
            raise
        except Exception as error:
            await self.close()
            raise translate(_expected(error)) from None
        except asyncio.CancelledError:
            await self.close()
            raise
        self._pulse.beat()
        return reply

    async def batch(self, commands: Sequence[Iterable[Any]], *, timeout: float | None = None) -> list[Any]:
        """Several commands in one write. Replies in order, an error reply as a `StoreError` value.

        Without `timeout`, in seconds, the store's pulse tells when the way is dead. Raises `StoreDown` when the
        connection broke: then any of the commands may have been carried out.
        """
        connection = self._connection
        found: list[Any] = []
        # hiredis packs in C; redis-py's own packing is a third of the cost of a send.
        packed = b"".join([hiredis.pack_command(tuple(command)) for command in commands])
        try:
            self._check_open()
            # One clock for the batch, and none of redis-py's: its own `timeout` gives None for a late reply, and
            # the next command would then be answered with it.
            async with self._pulse.wait(LONGEST, self._came) if timeout is None else asyncio.timeout(timeout):
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    try:
                        found.append(await connection.read_response())
                    except ResponseError as error:
                        found.append(error if isinstance(error, NoScriptError) else translate(error))
        except Exception as error:
            await self.close()
            raise translate(_expected(error)) from None
        except asyncio.CancelledError:
            # Half a reply may be on the wire: the connection cannot be used again.
            await self.close()
            raise
        self._pulse.beat()
        return found

    def _came(self) -> int:
        """Bytes of the reply that is waited for."""
        return getattr(self._parser, "taken", 0)

    @property
    def _transport(self) -> asyncio.Transport | None:
        # redis-py has no public way to it.
        transport: asyncio.Transport | None = getattr(getattr(self._connection, "_writer", None), "transport", None)
        return transport

    def _check_open(self) -> None:
        """Raises `ConnectionError` if the connection was lost: redis-py would open it again by itself, with nobody
        knowing, and asyncio before 3.13.1 falls over a write to it.
        """
        transport = self._transport  # where there is none, the write finds out, on a newer Python
        if not self._connection.is_connected or (transport is not None and transport.is_closing()):
            raise rx.ConnectionError("the connection was lost")

    async def read(
        self, stream: str, cursor: str, count: int | Budget, *, block: float = BLOCK, lasts: float = 0.0
    ) -> RawEntries:
        """Entries behind the cursor, waiting up to `block` seconds for the first. Empty when none came.

        Goes on to wait while that is so, until about `lasts` seconds are over; the store is heard from every `BLOCK`.
        `count` of them at most; a `Budget` learns from what came. Raises `StoreError`, `TooLarge` of them.
        """
        milliseconds, most = max(1, int(block * 1000)), count if isinstance(count, int) else count.count
        reply = await self._ask_on(lasts, "XREAD", "COUNT", most, "BLOCK", milliseconds, "STREAMS", stream, cursor)
        async with self._taking_apart():
            found = replies.read_entries(reply)
        if isinstance(count, Budget):
            count.took(found)
        return found

    async def probe(self, stream: str, cursor: str, count: int | Budget) -> tuple[StreamInfo, RawEntries]:
        """The stream's counts and what is behind the cursor, at one moment (MULTI).

        The counts by a script: XINFO's own answer has the first and the last entry in it, however large they are.
        """
        most = count if isinstance(count, int) else count.count
        asked = counts(stream)
        script = ("EVAL", asked.script.source, *asked.command()[2:])
        answers = await self.batch([("MULTI",), script, ("XREAD", "COUNT", most, "STREAMS", stream, cursor), ("EXEC",)])
        for answer in answers:  # the first error is the reason, EXEC's only says that there was one
            if isinstance(answer, StoreError):
                raise answer
        async with self._taking_apart():
            info, entries = replies.row(answers[-1], object, object, wanted="two answers")
            if isinstance(entries, RedisError):
                raise translate(entries)
            if isinstance(info, RedisError):
                raise translate(info)
            facts, found = asked.script.read(info).info, replies.read_entries(entries)
        if isinstance(count, Budget):
            count.took(found)
        return facts, found

    async def counts(self, stream: str) -> StreamInfo:
        """The stream's counts alone."""
        asked = counts(stream)
        reply = await self.call("EVAL", asked.script.source, *asked.command()[2:])
        async with self._taking_apart():
            return asked.script.read(reply).info

    async def sizes(self, stream: str, cursor: str, count: int) -> list[Size]:
        """Ids and sizes of up to `count` entries behind the cursor, whose contents stay in the store.

        What comes behind one of many megabytes is not among them.
        """
        invocation = sizes(stream, cursor, count)
        reply = await self.call("EVAL", invocation.script.source, *invocation.command()[2:])
        async with self._taking_apart():
            return invocation.script.read(reply)

    @contextlib.asynccontextmanager
    async def _taking_apart(self) -> AsyncIterator[None]:
        """Who answers in the shape of something else is not asked again."""
        try:
            yield
        except Garbled:
            await self.close()
            raise


async def _disconnect(connection: AbstractConnection) -> None:
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


def _expected(error: Exception) -> Exception:
    """The error itself. What redis-py does not mean to raise is kept for whoever looks for its cause.

    It takes apart what it is told when it connects, and the errors that it is sent, and trips over what no store says.
    """
    if not isinstance(error, RedisError | StoreError | OSError | TimeoutError):
        log.debug("redis-py fell over an answer", exc_info=error)
    return error


def _translate_connect(error: Exception, shown: str) -> StoreError:
    ours = translate(error)
    if ours.message.startswith("no connection") or ours.message.startswith("the store does not"):
        text = one_line(str(error)) or "no answer in time"
        return type(ours)(f"the store {shown} is out of reach: {text}", ours.hint)
    return ours
