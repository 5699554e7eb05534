"""The way from a daemon to its store, which can break in every way that a network does."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable

from tests.helper import DEADLINE, Store, free_port

_PIECE = 1 << 16
_ROOM = 1 << 20  # bytes that wait for one side before the other is not read any more


class _Side:
    """One of the two connections of a pair, and what waits to be written to it."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.waiting = bytearray()
        self.ended = False  # nothing more comes from it
        self.peer: _Side
        self.silent = False  # half-open: it hangs for ever, also when the way is whole again
        self.said = b""  # what came from it last


class Way:
    """A loopback port that leads to a store's socket. A new one is whole; `heal` makes it so again.

    All work is done by one thread of its own, so that no two things happen to a connection at once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._selector = selectors.DefaultSelector()
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._bell, self._ear = socket.socketpair()
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._sides: set[_Side] = set()
        self._frozen = self._swallowing = self._closing = False
        self._listener: socket.socket | None = None
        self._port = free_port()
        self._listen()
        self.url = f"redis://127.0.0.1:{self._port}"
        self._thread = threading.Thread(target=self._run, name=f"way at {self._port}")
        self._thread.start()

    # --- what can be done to it ---

    def cut(self) -> None:
        """Break every connection by a reset. New ones are taken."""
        self._order(self._cut)

    def refuse(self) -> None:
        """Break every connection, and refuse new ones."""

        def work() -> None:
            self._deaf()
            self._cut()

        self._order(work)

    def freeze(self) -> None:
        """Nothing passes in either direction, and nothing is lost: it goes on when the way is healed."""

        def work() -> None:
            self._frozen = True
            self._watch_all()

        self._order(work)

    def half_open(self) -> None:
        """All that is said is lost without a word. What is open now or is opened meanwhile hangs for ever."""

        def work() -> None:
            self._swallowing = True
            for side in self._sides:
                side.silent = True
                side.waiting.clear()
            self._watch_all()

        self._order(work)

    def forget(self, words: bytes) -> int:
        """How many connections hang for ever from now on: those on which these words were among the last. New ones
        pass, as with a router that has forgotten a few."""
        forgotten: list[_Side] = []

        def work() -> None:
            for side in self._sides:
                if words in side.said and not side.silent:
                    forgotten.append(side)
                    for one in (side, side.peer):
                        one.silent = True
                        one.waiting.clear()

        self._order(work)
        return len(forgotten)

    def heal(self) -> None:
        """New connections pass, and what was frozen goes on."""

        def work() -> None:
            self._frozen = self._swallowing = False
            if self._listener is None:
                self._listen()
            self._watch_all()

        self._order(work)

    def close(self) -> None:
        def work() -> None:
            self._deaf()
            self._cut()
            self._closing = True

        self._order(work)
        self._thread.join()
        self._selector.close()
        self._bell.close()
        self._ear.close()

    def _order(self, work: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.append((work, done))
        self._bell.send(b"!")
        assert done.wait(DEADLINE), f"the way at {self._port} hangs"

    # --- its thread ---

    def _run(self) -> None:
        while not self._closing:
            for key, events in self._selector.select():
                if key.fileobj is self._ear:
                    self._obey()
                elif key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, _Side) and key.data in self._sides:
                    self._pass_on(key.data, events)

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(_PIECE)
        while self._orders:
            work, done = self._orders.popleft()
            work()
            done.set()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=200)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _deaf(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            client = _Side(self._listener.accept()[0])
            server = _Side(socket.socket(socket.AF_UNIX))
            client.peer, server.peer = server, client
            client.silent = server.silent = self._swallowing
            self._sides |= {client, server}
            try:
                server.connection.connect(self._store.socket)
            except OSError:  # the store is not there
                self._reset(client)
                return
            self._watch(client)
            self._watch(server)

    def _pass_on(self, side: _Side, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                del side.waiting[: side.connection.send(side.waiting)]
            if events & selectors.EVENT_READ:
                data = side.connection.recv(_PIECE)
                side.ended = not data
                side.said = data or side.said
                if not side.silent:
                    side.peer.waiting += data
        except BlockingIOError:
            pass
        except OSError:
            self._reset(side)
            return
        if side.ended and not side.peer.waiting:
            self._drop(side)  # nobody here shuts down one direction alone
            return
        if side.peer.ended and not side.waiting:
            self._drop(side)
            return
        self._watch(side)
        self._watch(side.peer)

    def _watch_all(self) -> None:
        for side in self._sides:
            self._watch(side)

    def _watch(self, side: _Side) -> None:
        events = 0
        if not self._frozen:
            if not side.ended and len(side.peer.waiting) < _ROOM:
                events |= selectors.EVENT_READ
            if side.waiting:
                events |= selectors.EVENT_WRITE
        known = side.connection in self._selector.get_map()
        if events and known:
            self._selector.modify(side.connection, events, side)
        elif events:
            self._selector.register(side.connection, events, side)
        elif known:
            self._selector.unregister(side.connection)

    def _cut(self) -> None:
        for side in list(self._sides):
            if side in self._sides:
                self._reset(side)

    def _reset(self, side: _Side) -> None:
        for one in (side, side.peer):
            if one.connection.family == socket.AF_INET:
                # Lingering for no time at all is what makes a reset of a close.
                with contextlib.suppress(OSError):
                    one.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop(side)

    def _drop(self, side: _Side) -> None:
        for one in (side, side.peer):
            if one in self._sides:
                self._sides.remove(one)
                if one.connection in self._selector.get_map():
                    self._selector.unregister(one.connection)
                one.connection.close()
