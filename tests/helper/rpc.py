"""The control socket, from a test's side."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.helper.waiting import DEADLINE


class Rpc:
    """A blocking client of the control socket, one JSON line at a time."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self._lines = self.socket.makefile("rb")
        self._id = 0

    def send(self, method: str, /, **params: Any) -> int:
        """Ask without waiting. A parameter `from` is given as `from_`."""
        self._id += 1
        named = {name.rstrip("_"): value for name, value in params.items()}
        self.raw(json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": named}).encode() + b"\n")
        return self._id

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> dict[str, Any]:
        """The next line. Fails with `EOFError` if the daemon closed the connection."""
        answer: dict[str, Any] = json.loads(self.line())
        return answer

    def line(self) -> bytes:
        """The next line as it comes. Fails like `read`."""
        line = self._lines.readline()
        if not line:
            raise EOFError
        return line

    def call(self, method: str, /, **params: Any) -> Any:
        """The result; an error fails with its kind."""
        answer = self.answer(method, **params)
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    def answer(self, method: str, /, **params: Any) -> dict[str, Any]:
        """The whole answer, result or error; notifications before it are dropped."""
        request = self.send(method, **params)
        while (answer := self.read()).get("id") != request:
            pass
        return answer

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def __enter__(self) -> Rpc:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RpcError(Exception):
    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.kind: str = error["data"]["kind"]
        self.error = error
