"""`meshctl doctor`: what is wrong, one line a finding, each with the next command to type."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from meshd import __version__, paths, settings
from meshd.commands.base import Printed
from meshd.control import cli
from meshd.errors import MeshError

TIMEOUT = 10.0


class Finding(NamedTuple):
    """`level`: ok, warning or error."""

    level: str
    what: str
    next: str = ""


def run(*, as_json: bool) -> Printed:
    """Check everything; exit code 1 if there is an error among the findings."""
    findings = [*_folders(), *_configuration(), *_store_program(), *_daemon()]
    code = 1 if any(finding.level == "error" for finding in findings) else 0
    if as_json:
        return Printed(cli.encode({"ok": code == 0, "findings": [f._asdict() for f in findings]}), code=code)
    marks = {"ok": "✓", "warning": "!", "error": "✗"}
    lines = [f"{marks[f.level]} {f.what}\n" + (f"    next: {f.next}\n" if f.next else "") for f in findings]
    return Printed("".join(lines), code=code)


def _folders() -> Iterator[Finding]:
    run_dir = os.path.dirname(paths.socket_path())
    for what, path in (("state", paths.state_dir()), ("cache", paths.cache_dir()), ("socket", run_dir)):
        existing = path
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        if not os.access(existing, os.W_OK | os.X_OK):
            yield Finding(
                "error", f"the {what} folder {path} is not writable", f"chown $USER {existing}; chmod u+rwx {existing}"
            )
        elif existing == path and os.stat(path).st_mode & 0o022:
            yield Finding("warning", f"others may write into {path}", f"chmod 700 {path}")
        else:
            free = os.statvfs(existing)
            if free.f_bavail * free.f_frsize < 50 << 20:
                yield Finding("warning", f"less than 50 MiB are free in {path}", f"df -h {existing}")
            else:
                yield Finding("ok", f"{what} folder {path}")


def _configuration() -> Iterator[Finding]:
    try:
        found = settings.load()
    except MeshError as error:
        yield Finding("error", error.message, error.hint)
        return
    from meshd.store.endpoint import redacted

    try:
        url = found.url
    except MeshError as error:
        yield Finding("error", error.message, error.hint)
        return
    yield Finding("ok", f"configuration: store {redacted(url) if url else 'embedded'}, prefix {found.prefix}")


def _store_program() -> Iterator[Finding]:
    from meshd.store.embedded import binary

    try:
        yield Finding("ok", f"embedded store: {binary()}")
    except MeshError as error:
        yield Finding("error" if not os.environ.get("AGENT_MESH_REDIS_URL") else "ok", error.message, error.hint)


def _daemon() -> Iterator[Finding]:
    path = paths.socket_path()
    if not os.path.exists(path):
        yield Finding("warning", f"meshd is not running: nothing at {path}", "meshctl up")
        return
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        yield Finding("error", f"{path} is not a socket", f"mv {path} {path}.old && meshctl up")
        return
    try:
        hello, status = _ask(path, "hello"), _ask(path, "status")
    except ConnectionRefusedError:
        yield Finding("warning", "meshd is not running; a killed one left its socket", "meshctl up")
        return
    except (OSError, ValueError) as error:
        yield Finding("error", f"meshd does not answer on {path}: {error}", "meshctl down; meshctl up")
        return
    yield Finding("ok", f"meshd {hello['version']} answers (pid {hello['pid']})")
    if hello["version"] != __version__:
        yield Finding(
            "warning", f"the daemon is {hello['version']}, this client {__version__}", "meshctl down; meshctl up"
        )
    store = status["store"]
    if store["state"] == "up":
        yield Finding("ok", f"store {store['where']}: {store['server']}")
    else:
        yield Finding("error", f"store {store['where']}: {store['trouble']}", store["hint"])
    for agent in status["agents"]:
        if agent["trouble"]:
            yield Finding("error", f"{agent['name']}: {agent['trouble']}", "meshctl logs")


def _ask(path: str, method: str) -> Any:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(path)
        client.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}).encode() + b"\n")
        with client.makefile("rb") as lines:
            answer = json.loads(lines.readline())
    if "error" in answer:
        raise ValueError(answer["error"]["message"])
    return answer["result"]
