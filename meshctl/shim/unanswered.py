"""What a client has asked and nobody has answered yet: what is to be said again to the next gateway."""

import time

from meshctl.client import parse, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Asked:
    """One that was not answered yet."""

    def __init__(self, request_id: "Any", line: bytes, method: "Any") -> None:
        self.id = request_id
        self.line = line
        self.method = method
        self.tries = 0
        self.since = time.monotonic()


class Unanswered:
    """Those that are open, by `key` and in their order, and the handshake, which every gateway is told."""

    def __init__(self) -> None:
        self.open: dict[str, Asked] = {}
        self.initialized = b""  # the client's line that says so
        self._initialize: Asked | None = None
        self._replayed: str | None = None  # the answer to a replayed `initialize` is not for the client

    def take(self, message: "dict[str, Any]", line: bytes) -> "Asked | None":
        """One line of the client: the request that is open from now on; None if nobody waits for an answer to it."""
        method, request_id = message.get("method"), message.get("id")
        if method == "notifications/initialized":
            self.initialized = line
        elif method == "notifications/cancelled":
            params = message.get("params")
            self.open.pop(key(params.get("requestId") if isinstance(params, dict) else None), None)
        if not is_id(request_id) or "result" in message or "error" in message:
            return None
        request = self.open[key(request_id)] = Asked(request_id, line, method)
        if method == "initialize":
            self._initialize = request
        return request

    def replayed(self) -> bytes:
        """The line of the handshake that was answered before, to be sent once more; empty if it is open or to come."""
        first = self._initialize
        if first is None or self.open.get(key(first.id)) is first:
            return b""
        self._replayed = key(first.id)
        return first.line

    def is_replayed(self, request_id: "Any") -> bool:
        """Whether this answers the replayed handshake, which happens once."""
        found = self._replayed is not None and key(request_id) == self._replayed
        if found:
            self._replayed = None
        return found

    def drop(self, request_id: "Any") -> "Asked | None":
        """It is open no more. None if it was not: the client has taken it back."""
        return self.open.pop(key(request_id), None)

    def overdue(self, lost: float, patience: float) -> "list[Asked]":
        """Those that were open without a daemon for so many seconds, which has been away since `lost`."""
        now = time.monotonic()
        return [request for request in self.open.values() if now - max(lost, request.since) > patience]


def parsed(line: bytes) -> "dict[str, Any]":
    """The message in a line; an empty one if it is none: the gateway says what is wrong with it."""
    try:
        message = parse(line)
    except (ValueError, StopIteration, RecursionError, SystemError):  # the last: on 3.11, with no `json` loaded
        return {}
    return message if isinstance(message, dict) else {}


def is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def key(request_id: "Any") -> str:
    return repr(request_id) if is_id(request_id) else ""  # 1 and "1" are two


def as_json(request_id: "Any") -> bytes:
    if not is_id(request_id):
        return b"null"
    return quote(request_id).encode("utf-8", "replace") if isinstance(request_id, str) else b"%d" % request_id
