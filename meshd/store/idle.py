"""A connection on which nothing comes: the same question again and again, with nobody woken in between.

A reader has to hear from the store every few seconds to know that its way is whole. With a thousand of them, most of
that would be the cost of waking a task for nothing: so as long as the answer is "nothing", the question is put again
where the answer comes in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

NOTHING = b"*-1\r\n"  # a null array, RESP 2: the block of XREAD is over


class AskingAgain(asyncio.Protocol):
    """Takes the place of a transport's protocol, which gets back all that is not "nothing", and its place with it.

    `again()`: whether to ask again; it is called once for each answer.
    """

    def __init__(self, transport: asyncio.Transport, question: bytes, again: Callable[[], bool]) -> None:
        self._transport = transport
        self._question = question
        self._again = again
        self._inner = transport.get_protocol()
        transport.set_protocol(self)

    def end(self) -> None:
        """Give the place back."""
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._inner)

    def data_received(self, data: bytes) -> None:
        if data == NOTHING and self._again():
            self._transport.write(self._question)
            return
        self.end()
        assert isinstance(self._inner, asyncio.Protocol)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        self.end()
        assert isinstance(self._inner, asyncio.Protocol)
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
