"""The daemon: does it run, does it answer, is it this user's and this version's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from meshctl import skew
from meshctl.doctor.facts import Facts, is_stopped, sockets_of
from meshctl.doctor.finding import Finding, ended, quote
from meshd import __version__, paths

AREA = "daemon"


def check(facts: Facts) -> Iterator[Finding]:
    yield from _path(facts)
    if facts.hello is None:
        yield _no_answer(facts)
        return
    pid = facts.hello["pid"]
    yield Finding("ok", AREA, f"meshd {facts.hello['version']} answers (pid {pid})")
    if facts.hello["version"] != __version__:
        what, command = skew.found(facts.hello["version"], facts.managed_by, pid)
        yield Finding("warning", AREA, what, command)
    theirs = (facts.status or {}).get("state_dir", paths.state_dir())
    if os.path.realpath(theirs) != os.path.realpath(paths.state_dir()):
        yield Finding(
            "error",
            AREA,
            f"the daemon on {facts.socket} is of another home: its files are in {theirs}, yours in {paths.state_dir()}",
            f"{_same_home(theirs)}  # or, to end that one for everybody: meshctl down && meshctl up",
        )


def _same_home(theirs: str) -> str:
    """What has this shell use these files."""
    home = theirs.removesuffix(f"/.local/state/{paths.APP}")
    if home == theirs:
        return f"export XDG_STATE_HOME={quote(os.path.dirname(theirs))}"
    unset = "unset XDG_STATE_HOME; " if os.environ.get("XDG_STATE_HOME") else ""
    return f"{unset}export HOME={quote(home)}"


def _path(facts: Facts) -> Iterator[Finding]:
    wanted, path = paths.wanted_socket_path(), facts.socket
    if path != wanted:
        short = os.path.join(os.path.expanduser("~"), ".meshd.sock")
        if len(os.fsencode(short)) > paths.SOCKET_PATH_BUDGET:
            short = f"/run/user/{os.getuid()}/meshd.sock"
        yield Finding(
            "warning",
            "socket",
            f"the path {wanted} is too long for a socket: {path} is used, where a cleaner of /tmp may remove it",
            f"meshctl down; export AGENT_MESH_SOCKET={quote(short)} && meshctl up",
        )
    try:
        status, folder = os.lstat(path), os.stat(os.path.dirname(path))
    except OSError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        return  # what it is instead is said where nobody answers
    if status.st_mode & 0o077:
        level = "error" if status.st_mode & 0o022 else "warning"
        yield Finding(
            level, "socket", f"{path} is open to others (mode {status.st_mode & 0o777:04o})", f"chmod 600 {quote(path)}"
        )
    mode, name = folder.st_mode, quote(os.path.dirname(path))
    if mode & 0o022 and not mode & stat.S_ISVTX:
        yield Finding("error", "socket", f"others may write into the socket's folder {name}", f"chmod 700 {name}")
    elif mode & 0o055 and not mode & stat.S_ISVTX:
        yield Finding("warning", "socket", f"others may look into the socket's folder {name}", f"chmod 700 {name}")
    else:
        yield Finding("ok", "socket", f"socket {path}")


def _no_answer(facts: Facts) -> Finding:
    path, pid, other = facts.socket, facts.pid, facts.state_pid
    if os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
        return Finding("error", AREA, f"{path} is not a socket", _vacate(path))
    if facts.silent is not None:
        return _silent(facts, facts.silent)
    alive = pid or other
    if alive is not None:
        return _elsewhere(facts, alive)
    if facts.waits:
        return Finding("ok", AREA, f"meshd is not running; {facts.waits} starts it with the first command")
    if os.path.lexists(path):
        return Finding("warning", AREA, "meshd is not running; a killed one left its socket", "meshctl up")
    return Finding("warning", AREA, f"meshd is not running: nothing at {path}", "meshctl up")


def _vacate(path: str) -> str:
    """What brings the socket's path and what is there apart. In a folder that is not ours nothing is to be moved."""
    if os.environ.get("AGENT_MESH_SOCKET"):
        return "unset AGENT_MESH_SOCKET && meshctl up"
    return f"mv {quote(path)} {quote(path)}.old && meshctl up"


def _silent(facts: Facts, why: str) -> Finding:
    """Somebody listens, and does not answer."""
    pid = facts.pid
    if pid is None:
        what = f"what listens on {facts.socket} is no meshd: it {why}"
        return Finding("error", AREA, what, _vacate(facts.socket))
    if is_stopped(pid):
        return Finding("error", AREA, f"meshd (pid {pid}) was stopped by a signal", f"kill -CONT {pid}")
    if facts.starting:
        return Finding("warning", AREA, f"meshd (pid {pid}) is starting, and {why}", "sleep 10; meshctl doctor")
    return Finding("error", AREA, f"meshd (pid {pid}) holds its lock and {why}", _again(facts, pid, "kill -9"))


def _elsewhere(facts: Facts, pid: int) -> Finding:
    """A daemon has our lock or our files, and cannot be reached at our socket."""
    found = [path for path in sockets_of(pid) if path != facts.socket and os.path.exists(path)]
    if found:
        return Finding(
            "error",
            AREA,
            f"meshd (pid {pid}) works with the files in {paths.state_dir()} and listens elsewhere, on {found[0]}",
            f"AGENT_MESH_SOCKET={quote(found[0])} meshctl down && meshctl up",
        )
    if is_stopped(pid):
        return Finding("error", AREA, f"meshd (pid {pid}) was stopped by a signal", f"kill -CONT {pid}")
    what = f"meshd (pid {pid}) runs, and nobody can reach it: its socket {facts.socket} was removed"
    return Finding("error", AREA, what, _again(facts, pid, "kill"))


def _again(facts: Facts, pid: int, kill: str) -> str:
    """End that process, which loses no message, and start another."""
    if facts.managed_by in ("systemd", "launchd"):
        return skew.restart(facts.managed_by)
    return f"{kill} {pid}; {ended(pid)}; meshctl up"
