"""What is said first to whatever answers: is it a store that we can use, and does it have the scripts?"""

from __future__ import annotations

import re
from typing import NamedTuple

from redis.exceptions import NoScriptError, ReadOnlyError

from meshd.errors import StoreError
from meshd.store import replies, scripts
from meshd.store.link import Link
from meshd.store.refusals import translate

OLDEST = {"redis": (7, 0), "valkey": (7, 2)}
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})[0-9A-Za-z.+-]{0,40}")


class StoreVersion(NamedTuple):
    """What answered: `redis` or `valkey`, and its version."""

    name: str
    version: str


async def greet(link: Link, timeout: float) -> StoreVersion:
    """Check that it is a store that we can use, and give it the scripts. Raises `StoreError`.

    `timeout`, in seconds, is for each of its two answers.
    """
    info = replies.text(await link.call("INFO", timeout=timeout))  # 6.2 knows only one section or all
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    name = "valkey" if "valkey_version" in facts else "redis"
    found = _VERSION.fullmatch(facts.get(f"{name}_version", ""))
    if found is None:
        raise replies.garbled(info.encode(), "what it is, with its version")
    if (int(found[1]), int(found[2])) < OLDEST[name]:
        needed = ".".join(map(str, OLDEST[name]))
        raise StoreError(f"the store is {name} {found[0]}", f"at least {name} {needed} is needed")
    if facts.get("role") == "slave":
        raise translate(ReadOnlyError())
    loads = [("SCRIPT", "LOAD", script.source) for script in scripts.ALL]
    for script, reply in zip(scripts.ALL, await link.batch(loads, timeout=timeout), strict=True):
        if isinstance(reply, NoScriptError):
            raise translate(reply)
        if isinstance(reply, StoreError):
            raise reply
        if replies.text(reply, "a script's digest") != script.digest:
            raise replies.garbled(reply, "a script's digest")
    return StoreVersion(name, found[0])
