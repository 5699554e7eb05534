"""A 0.1 program, played by raw commands: what it writes, and what it finds."""

from __future__ import annotations

import secrets
import time
from typing import Any

import redis

from tests.helper import Home, Store, wait_until

Value = str | bytes | int | float


class Peer:
    """Somebody with a connection to the store and no daemon. Keys are given without their prefix."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store: Any = store.client()
        self.prefix = prefix

    def key(self, name: str) -> str:
        return f"{self.prefix}:{name}"

    def add(self, stream: str, fields: dict[Any, Value]) -> str:
        """XADD as 0.1 does it, and the entry's id."""
        entry: bytes = self.store.xadd(self.key(stream), fields, maxlen=2000, approximate=True)
        return entry.decode()

    def send(self, target: str, text: Value, sender: str = "old", **more: Value) -> str:
        """A 0.1 message, and its id."""
        message_id = str(more.pop("id", secrets.token_hex(16)))
        self.add(f"to_{target}", {"from": sender, "msg": text, "ts": f"{time.time():.6f}", "id": message_id, **more})
        return message_id

    def broadcast(self, text: str, sender: str = "old") -> str:
        message_id = secrets.token_hex(16)
        self.add("group", {"from": sender, "to": "*", "msg": text, "ts": f"{time.time():.6f}", "id": message_id})
        return message_id

    def entries(self, stream: str) -> list[dict[str, str]]:
        """The fields of all entries, oldest first; fails if one is not UTF-8."""
        found = self.store.xrange(self.key(stream))
        return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]

    def next(self, stream: str) -> dict[str, str]:
        """The newest entry, once there is one."""
        return wait_until(lambda: self.entries(stream), f"an entry in {stream}")[-1]  # type: ignore[no-any-return]

    def ttl(self, name: str) -> int:
        """Seconds to live; -1 for ever, -2 no such key."""
        return int(self.store.ttl(self.key(name)))

    def names(self) -> list[str]:
        """All keys under the prefix, without it."""
        found = self.store.scan_iter(match=f"{self.prefix}:*", count=10_000)
        return sorted(key.decode().removeprefix(f"{self.prefix}:") for key in found)

    def close(self) -> None:
        with_close: redis.Redis = self.store
        with_close.close()


def texts(home: Home, name: str, *, peek: bool = False, limit: int = 1000) -> list[str]:
    """What an `inbox` of the name shows, in order; read after that, unless `peek`."""
    with home.rpc() as rpc:
        return [message["text"] for message in rpc.call("inbox", name=name, peek=peek, limit=limit)["messages"]]


def hosted(home: Home, name: str) -> dict[str, Any] | None:
    """The agent's line in `status`, or None if it is not hosted here."""
    with home.rpc() as rpc:
        found: list[dict[str, Any]] = rpc.call("status")["agents"]
    return next((agent for agent in found if agent["name"] == name), None)


def receiving(home: Home, name: str) -> bool:
    """Whether the agent is hosted here and has caught up with the store."""
    agent = hosted(home, name)
    return agent is not None and agent["state"] == "receiving"


def wait_for_texts(home: Home, name: str, *wanted: str) -> None:
    """Wait until all of `wanted` are among the unread messages."""
    wait_until(lambda: set(wanted) <= set(texts(home, name, peek=True)), f"{name} has {', '.join(wanted)}")
