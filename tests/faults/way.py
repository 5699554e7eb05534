"""The way from a daemon to its store, which can break in every way that a network does."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable

from tests.faults.passing import Late, Side
from tests.helper import DEADLINE, Store, free_port

_PIECE = 1 << 16
_ROOM = 1 << 20  # bytes that wait for one side before the other is not read any more


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
        self._sides: set[Side] = set()
        self._frozen = self._swallowing = self._closing = self._trickling = False
        self._deaf_to_replies = False
        self._cut_requests: bytes | None = None  # what is in those that break their connections
        self._cut_replies: bytes | None = None  # what is in the requests whose replies do
        self._part = 0.0  # of such a reply that passes before
        self._delay = 0.0
        self._late = Late()
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
        forgotten: list[Side] = []

        def work() -> None:
            for side in self._sides:
                if words in side.said and not side.silent:
                    forgotten.append(side)
                    for one in (side, side.peer):
                        one.silent = True
                        one.waiting.clear()

        self._order(work)
        return len(forgotten)

    def cut_before_request(self, mark: bytes = b"") -> None:
        """Each next request with this in it is lost, and its connection breaks."""
        self._set(_cut_requests=mark)

    def cut_in_reply(self, part: float, mark: bytes = b"") -> None:
        """This part of each next reply to a request with `mark` in it passes, and its connection breaks."""
        self._set(_cut_replies=mark, _part=part)

    def drop_replies(self) -> None:
        """Requests reach the store, and no reply comes. What was open meanwhile is broken when the way is healed."""
        self._set(_deaf_to_replies=True)

    def trickle(self) -> None:
        """One byte at a time, in both directions."""
        self._set(_trickling=True)

    def delay(self, seconds: float) -> None:
        """So much later, in each direction."""
        self._set(_delay=seconds)

    def _set(self, **values: object) -> None:
        self._order(lambda: self.__dict__.update(values))

    def lead_to(self, store: Store) -> None:
        """Break every connection; new ones lead to another store."""

        def work() -> None:
            self._store = store
            self._cut()

        self._order(work)

    def heal(self) -> None:
        """New connections pass, and what was frozen goes on."""

        def work() -> None:
            if self._deaf_to_replies:
                self._cut()  # their replies would answer other requests
            self._frozen = self._swallowing = self._trickling = False
            self._deaf_to_replies = False
            self._cut_requests = self._cut_replies = None
            self._delay = 0.0
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
            self._deliver_late()
            for key, events in self._selector.select(self._late.wait()):
                if key.fileobj is self._ear:
                    self._obey()
                elif key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, Side) and key.data in self._sides:
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
            client = Side(self._listener.accept()[0], of_store=False)
            server = Side(socket.socket(socket.AF_UNIX), of_store=True)
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

    def _pass_on(self, side: Side, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                del side.waiting[: side.connection.send(side.waiting[: 1 if self._trickling else None])]
            if events & selectors.EVENT_READ:
                data = side.connection.recv(_PIECE)
                side.ended = not data
                side.said = data or side.said
                if not side.silent:
                    self._hand_on(side, data)
        except BlockingIOError:
            pass
        except OSError:
            self._reset(side)
            return
        for one in (side, side.peer):
            if one.doomed and not one.waiting:
                self._reset(one)
                return
            if one.ended and not one.peer.waiting and not self._late.has(one.peer):
                self._drop(one)  # nobody here shuts down one direction alone
                return
        self._watch(side)
        self._watch(side.peer)

    def _hand_on(self, side: Side, data: bytes) -> None:
        """What came from one side, to the other, as the way is just now."""
        if side.of_store and self._deaf_to_replies:
            return
        if not side.of_store:
            if self._cut_requests is not None and self._cut_requests in data:
                side.doomed = True
                return
            side.marked = self._cut_replies is not None and self._cut_replies in data
        elif side.peer.marked and data:
            data = data[: int(len(data) * self._part)]
            side.peer.doomed = True
        if self._delay and data:
            self._late.put(self._delay, side.peer, data)
        else:
            self._deliver_late(side.peer)  # nothing overtakes
            side.peer.waiting += data

    def _deliver_late(self, of: Side | None = None) -> None:
        for side, data in self._late.due(of):
            if side in self._sides and not side.silent:
                side.waiting += data
                self._watch(side)

    def _watch_all(self) -> None:
        for side in self._sides:
            self._watch(side)

    def _watch(self, side: Side) -> None:
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

    def _reset(self, side: Side) -> None:
        for one in (side, side.peer):
            if one.connection.family == socket.AF_INET:
                # Lingering for no time at all is what makes a reset of a close.
                with contextlib.suppress(OSError):
                    one.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop(side)

    def _drop(self, side: Side) -> None:
        for one in (side, side.peer):
            if one in self._sides:
                self._sides.remove(one)
                if one.connection in self._selector.get_map():
                    self._selector.unregister(one.connection)
                one.connection.close()
