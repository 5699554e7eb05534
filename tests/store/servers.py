"""Servers that a test starts for itself: on TCP ports, behind a password, or no store at all."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.helper import Home, Store, program, wait_until


@contextlib.contextmanager
def a_store(kind: str, folder: Path, *options: str, port: int = 0) -> Iterator[Store]:
    """A server of its own, on a Unix socket, and on a loopback port if one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    tcp = ["--port", str(port), "--bind", "127.0.0.1"] if port else []
    store = Store(program(kind), folder, *tcp, *options)
    try:
        yield store
    finally:
        store.close()


class Fake:
    """Something that listens where a store should be: `answer` gives what it says to each chunk, None to hang up.

    `port`: a free one, unless it is given.
    """

    def __init__(self, answer: Callable[[bytes], bytes | None], port: int = 0) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", port))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.add(connection)
                thread = threading.Thread(target=self._talk, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            try:
                while data := connection.recv(65536):
                    said = self._answer(data)
                    if said is None:
                        return
                    connection.sendall(said)
            finally:
                self._open.discard(connection)

    def reset(self) -> None:
        """Break every connection as a firewall does: no end of the stream, but a reset."""
        while self._open:
            connection = self._open.pop()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RD)  # its thread closes it

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


def commands_in(data: bytes) -> list[bytes]:
    """The first words of the commands in one chunk of RESP, upper case."""
    lines = data.split(b"\r\n")
    return [lines[k + 2].upper() for k, line in enumerate(lines) if line.startswith(b"*") and k + 2 < len(lines)]


def state(home: Home) -> dict[str, Any]:
    """The store's part of `status`."""
    with home.rpc() as rpc:
        found: dict[str, Any] = rpc.call("status")["store"]
    return found


def is_up(home: Home) -> bool:
    return bool(state(home)["state"] == "up")


def trouble(home: Home, *, but: str = "not connected yet") -> str:
    """What `status` says is wrong, once it says anything but the first word."""
    found: str = wait_until(lambda: (text := state(home)["trouble"]) and text != but and text, "a reason is known")
    return found


def secret_is_nowhere(home: Home, secret: str, *said: str) -> None:
    """Neither in anything that was said, nor in a file of the home, nor in an argument list."""
    files = [path for path in home.path.rglob("*") if path.is_file()]
    texts = [*said, *(path.read_text(errors="replace") for path in files)]
    for arguments in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            texts.append(arguments.read_text(errors="replace"))
    assert not [text for text in texts if secret in text]
