"""The store, asked over a connection of our own: the daemon may be what is wrong, and knows less of it."""

from __future__ import annotations

import asyncio
import statistics
import time
from urllib.parse import urlsplit

from meshctl.doctor.access import Access, try_access
from meshctl.doctor.facts import Facts, is_stopped, listener_of
from meshd import paths
from meshd.core.names import Keys
from meshd.errors import ConfigError, MeshError, StoreDown, StoreError
from meshd.store import endpoint, replies
from meshd.store.greeting import OLDEST
from meshd.store.link import Link
from meshd.store.redaction import redacted

ANSWER = 4.0  # seconds in which a store that works has answered everything
_PINGS = 5


class Answers:
    """What it said. `error` is why it said nothing; then all else is empty. `pid` is its process, where that is known.

    `ahead` is its clock's lead in seconds, `latency` that of a ping. `leases` gives who holds each hosted name, an
    instance or an empty string.
    """

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.shown = redacted(url) if url else "embedded"
        # Where it listens, if on this machine's file system.
        self.socket = paths.store_socket_path() if url is None else urlsplit(url).path if url[:5] == "unix:" else None
        self.error: MeshError | None = None
        self.pid: int | None = None
        self.info: dict[str, str] = {}
        self.folder: str | None = None
        self.appendfsync: str | None = None
        self.ahead = 0.0
        self.latency = 0.0
        self.access = Access()
        self.leases: dict[str, str] = {}

    @property
    def server(self) -> tuple[str, str]:
        """`redis` or `valkey`, and its version."""
        name = "valkey" if "valkey_version" in self.info else "redis"
        return name, self.info.get(f"{name}_version", "0.0")

    @property
    def too_old(self) -> bool:
        name, version = self.server
        return tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST[name]

    def number(self, name: str) -> int:
        text = self.info.get(name, "")
        return int(text) if text.isdigit() else 0


def ask(facts: Facts) -> Answers:
    """Everything that there is to ask. Ends within `ANSWER` seconds, but for a name server that hangs."""
    found = Answers(facts.url)
    if facts.settings is None:
        found.error = facts.bad_settings or ConfigError("no configuration")
        return found
    if found.socket:
        found.pid = listener_of(found.socket)
        if found.pid is not None and is_stopped(found.pid):
            found.error = StoreDown(f"the store {found.shown} was stopped")
            return found
    try:
        asyncio.run(_ask(found, facts, facts.settings.prefix))
    except MeshError as error:
        found.error = error
    return found


async def _ask(found: Answers, facts: Facts, prefix: str) -> None:
    where = endpoint.from_url(found.url, prefix) if found.url else endpoint.unix(found.socket or "", found.shown)
    link = None
    try:
        async with asyncio.timeout(ANSWER):
            link = await Link.open(where)
            await _talk(link, found, facts, Keys(prefix))
    except TimeoutError:
        raise StoreDown(f"the store {found.shown} does not answer within {ANSWER:g} s") from None
    finally:
        if link is not None:
            await link.close()


async def _talk(link: Link, found: Answers, facts: Facts, keys: Keys) -> None:
    found.info = replies.facts(await link.call("INFO"))
    if found.too_old:
        return
    await _clocks(link, found)
    agents = [agent["name"] for agent in (facts.status or {}).get("agents", [])]
    found.access = await try_access(link, keys, agents)
    try:
        folder, fsync = await link.batch([("CONFIG", "GET", "dir"), ("CONFIG", "GET", "appendfsync")])
        found.folder = replies.row(folder, bytes, bytes)[1].decode("utf-8", "replace")
        found.appendfsync = replies.row(fsync, bytes, bytes)[1].decode("utf-8", "replace")
    except StoreError:
        pass  # a managed store shows nobody its configuration
    if agents:
        try:
            held = replies.row(await link.call("MGET", *map(keys.lease, agents)), *[object] * len(agents))
            values = [replies.value(each) or b"" for each in held]
        except StoreError:
            return
        found.leases = {name: value.decode("ascii", "replace") for name, value in zip(agents, values, strict=True)}


async def _clocks(link: Link, found: Answers) -> None:
    took = []
    for _ in range(_PINGS):
        began = time.monotonic()
        await link.batch([("PING",)])  # a store that cannot save answers with an error, and answers
        took.append(time.monotonic() - began)
    found.latency = statistics.median(took)
    began = time.time()
    try:
        clock = replies.clock(await link.call("TIME"))
    except StoreError:
        return  # an access list may not allow it
    found.ahead = clock - (began + time.time()) / 2
