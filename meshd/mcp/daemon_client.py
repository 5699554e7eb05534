"""The gateway's client of the daemon's control socket: calls by id, many at once, cancelled when the caller is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from meshd.errors import DaemonDown, MeshError, Stopping, UsageError
from meshd.observing.background import Background

log = logging.getLogger("meshd.mcp")

LIMIT = 2 << 20  # of one line of a shim
LONGEST_ANSWER = 64 << 20  # of the daemon, which bounds its answers by other things than their length
MAX_LINE = 1 << 20  # what the daemon takes

Notify = Callable[[str, dict[str, Any]], None]


def _ignore(method: str, params: dict[str, Any]) -> None:
    """For callers that are told nothing."""


class DaemonError(MeshError):
    """An error that the daemon answered: its kind, sentence and hint."""

    def __init__(self, error: dict[str, Any]) -> None:
        data = error.get("data") or {}
        super().__init__(error["message"], data.get("hint", ""))
        self.daemon_kind: str = data.get("kind", "internal")


class DaemonGone(DaemonDown):
    """The connection to the daemon ended."""


class Control:
    """One connection to the daemon. What the daemon holds for it (sessions, receipts) ends with it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, notify: Notify) -> None:
        self._reader = reader
        self._writer = writer
        self._notify = notify
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._background = Background(log)
        self._task = self._background.start(self._read(), "reading from the daemon")

    @classmethod
    async def open(cls, path: str, notify: Notify = _ignore) -> Control:
        """Raises `OSError`. `notify` is called with the method and the parameters of each notification."""
        return cls(*await asyncio.open_unix_connection(path, limit=LONGEST_ANSWER), notify)

    async def call(self, method: str, **params: Any) -> Any:
        """The result. Raises `DaemonError`, or `DaemonGone`. A cancelled call is cancelled in the daemon too."""
        if self.gone:
            raise _gone()
        self._last = number = self._last + 1
        line = encoded({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + b"\n"
        if len(line) > MAX_LINE:  # the daemon would close the connection
            raise UsageError(f"a call of {len(line)} bytes is too long", "Put it into a file and send the path.")
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(line)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._hand_back(future.result())
            else:
                self.tell("cancel", id=number)
            raise
        finally:
            del self._waiting[number]

    def _hand_back(self, result: Any) -> None:
        """An answer that nobody waits for any more: mail in it is unread again."""
        if isinstance(result, dict) and "receipt" in result:
            self.tell("release", receipt=result["receipt"])

    async def _read(self) -> None:
        try:
            with contextlib.suppress(OSError, ValueError):  # it went, or wrote a line beyond all measure
                while (line := await self._reader.readline()) and self._took(msgspec.json.decode(line)):
                    pass
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_gone())

    def _took(self, answer: dict[str, Any]) -> bool:
        """Give an answer to whoever waits for it. False if it is the daemon's last word."""
        if "method" in answer:
            self._notify(answer["method"], answer.get("params") or {})
            return True
        future = self._waiting.get(answer.get("id", 0))
        if future is None or future.done():
            self._hand_back(answer.get("result"))
        elif "error" in answer:
            error = DaemonError(answer["error"])
            if error.daemon_kind == Stopping.kind:
                return False  # the connection ends with it, and what waits can be asked again
            future.set_exception(error)
        else:
            future.set_result(answer["result"])
        return True

    @property
    def gone(self) -> bool:
        return self._task.done()

    @property
    def running(self) -> int:
        """How many calls are not answered yet."""
        return len(self._waiting)

    def tell(self, method: str, **params: Any) -> None:
        """A call whose answer nobody waits for."""
        if not self.gone:
            self._writer.write(encoded({"jsonrpc": "2.0", "method": method, "params": params}) + b"\n")

    async def wait_closed(self) -> None:
        await asyncio.wait([self._task])

    async def close(self) -> None:
        await self._background.end()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def encoded(value: Any) -> bytes:
    """The value as JSON, the same for the same value. Raises `UsageError` if a client's value has no such form."""
    try:
        return msgspec.json.encode(value, order="sorted")
    except UnicodeEncodeError:
        raise UsageError("the text is not valid Unicode: half of a character is missing", "Send it whole.") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"the arguments cannot be sent: {error}", "Send plain values.") from None


def _gone() -> DaemonGone:
    return DaemonGone("the connection to meshd ended before this was answered", "call the tool again")
