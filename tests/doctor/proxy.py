"""A store behind a way that is slow, or whose clock is wrong: the real server, and what it says changed on its way."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable

from tests.helper import Store

Change = Callable[[bytes], bytes]


class Proxy:
    """Listens on a loopback port. `change` is given each piece that the store says, and may take its time."""

    def __init__(self, store: Store, change: Change) -> None:
        self._store = store
        self._change = change
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._store.socket)
                self._open += [client, server]
                self._pass_on(client, server, lambda data: data)
                self._pass_on(server, client, self._change)

    def _pass_on(self, source: socket.socket, target: socket.socket, change: Change) -> None:
        def work() -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    target.sendall(change(data))
                target.shutdown(socket.SHUT_WR)

        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for connection in self._open:
            connection.close()


def slow(seconds: float) -> Change:
    def change(data: bytes) -> bytes:
        time.sleep(seconds)  # the way is as long as this
        return data

    return change


_TIME = re.compile(rb"^\*2\r\n\$10\r\n(\d{10})\r\n\$\d\r\n\d+\r\n$")


def ahead(seconds: int) -> Change:
    """The replies to TIME are that much later."""

    def change(data: bytes) -> bytes:
        found = _TIME.match(data)
        return data.replace(found[1], b"%d" % (int(found[1]) + seconds)) if found else data

    return change
