"""The daemon's calls, one after the other: for what may load `json` and `socket`, as the doctor and the service may.

The usual commands go by `meshctl.client`, which costs less, and knows one call only.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from itertools import count
from typing import Any

from meshctl import client

CHUNK = 1 << 16


class Calls:
    """What the daemon is asked on one connection. To be used in a `with`.

    One rule of time: from its beginning to the whole of its answer a call has so many `seconds`, its own or else the
    connection's; then `TimeoutError` is raised.
    """

    def __init__(self, connection: client.socket, seconds: float) -> None:
        """Takes the connection over."""
        self._socket = socket.socket(fileno=connection.detach())
        self._seconds = seconds
        self._rest = b""
        self._ids = count(1)

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(
        self, method: str, params: dict[str, Any] | None = None, *, seconds: float | None = None
    ) -> dict[str, Any]:
        """The result.

        Raises `OSError`, of which `ConnectionError` if the connection ends first; `ValueError` with the daemon's
        words if it refuses, or if what comes is no answer.
        """
        until = time.monotonic() + (self._seconds if seconds is None else seconds)
        number = next(self._ids)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}
        self._socket.settimeout(_left(until))
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = json.loads(self._line(until))
            if not isinstance(answer, dict):
                raise ValueError("what it says is no answer")
            if answer.get("id") != number:
                continue
            if "error" in answer:
                raise ValueError(str(answer["error"]["message"]))
            result = answer.get("result")
            if not isinstance(result, dict):
                raise ValueError("its answer has no result")
            return result

    def wait_end(self, seconds: float) -> None:
        """Until the daemon closes it, whatever it says meanwhile. Raises `OSError`."""
        until = time.monotonic() + seconds
        while self._receive(until):
            pass

    def peer(self) -> int | None:
        """The pid of who listens, where the system tells."""
        if not hasattr(socket, "SO_PEERCRED"):
            return None
        pid: int = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid or None

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._rest:
            data = self._receive(until)
            if not data:
                raise ConnectionResetError("the connection ended before the answer")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _receive(self, until: float) -> bytes:
        self._socket.settimeout(_left(until))
        return self._socket.recv(CHUNK)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def connect(seconds: float) -> Calls | None:
    """As `meshctl.client.connect`: None if nobody listens."""
    connection = client.connect()
    return None if connection is None else Calls(connection, seconds)


def reach(path: str, seconds: float) -> Calls:
    """A connection to who listens there. Raises `OSError`: that nobody does is one, too."""

    def in_time(connection: client.socket, path: str) -> None:
        connection.settimeout(seconds)
        connection.connect(path)

    return Calls(client.connected(path, in_time), seconds)
