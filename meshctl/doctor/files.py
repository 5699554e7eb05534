"""The state files: can each be read, and is it of a format that is known here. None is opened for writing."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator

from meshctl import skew
from meshctl.doctor.finding import Finding, quote
from meshd import paths
from meshd.commands.reading import MAX_LIMIT
from meshd.core.agent import AgentCore
from meshd.core.names import Keys
from meshd.core.records import Segment
from meshd.disk import hosted, journal, logcursor, segments
from meshd.disk.files import read_only
from meshd.disk.formats import refuse_newer
from meshd.errors import ConfigError
from meshd.hosting.session_names import FORMAT as SESSIONS_FORMAT

AREA = "files"
LARGE = 64 << 20  # bytes of a journal, and of what it tells to be beside it: that much is unread


def check() -> Iterator[Finding]:
    state = paths.state_dir()
    if not os.path.isdir(state) or not os.access(state, os.R_OK | os.X_OK):
        return  # said of the folder
    findings = [*lists(state), *_agents(os.path.join(state, "agents")), *_notify_logs(paths.cache_dir())]
    yield from findings
    if not findings:
        count = len(glob.glob(os.path.join(glob.escape(state), "agents", "*.journal")))
        yield Finding("ok", AREA, f"state files are readable: the list of agents, journals and ledgers ({count})")


def lists(state: str) -> Iterator[Finding]:
    path = os.path.join(state, "hosted.json")
    try:
        hosted.load(path)
    except ConfigError as error:
        names = [quote(os.path.basename(found)[: -len(".journal")]) for found in _all(f"{state}/agents", "*.journal")]
        again = f"; for name in {' '.join(names)}; do meshctl register $name; done" if names else ""
        yield _unreadable(path, error, f"mv {quote(path)} {quote(path)}.damaged && {skew.restart('')}{again}")
    yield from _known(os.path.join(state, "sessions.json"), SESSIONS_FORMAT, "warning")


def _known(path: str, known: int, level: str) -> Iterator[Finding]:
    """A file that costs little if it is lost."""
    try:
        with open(path, "rb") as file:
            refuse_newer(path, file.read(), known)
    except FileNotFoundError:
        return
    except (OSError, ConfigError) as error:
        yield _unreadable(path, error, f"mv {quote(path)} {quote(path)}.damaged")._replace(level=level)


def _agents(folder: str) -> Iterator[Finding]:
    for path in _all(folder, "*.journal"):
        yield from journal_of(path)
    for path in _all(folder, "*.watch"):
        yield from _known(path, logcursor.FORMAT, "error")
    aside = os.path.join(os.path.dirname(folder), "aside")
    for pattern, what in (
        ("*.journal.damaged-*", "records of a journal were damaged, and are kept in"),
        ("*.unread-*.damaged-*", "unread mail was damaged, and what is left of it is kept in"),
        ("*.quarantine", "messages that could not be decoded are kept in"),
    ):
        for path in _all(folder, pattern):
            seen = f"mkdir -p {quote(aside)} && mv {quote(path)} {quote(aside)}/  # once you have looked at it"
            yield Finding("warning", AREA, f"{what} {path}", seen)


def journal_of(path: str) -> Iterator[Finding]:
    name = os.path.basename(path).removesuffix(".journal")
    try:
        health = journal.look(path, name)
        told = _segments(name, health)
        mail = segments.look(path, told.values())
        if mail.missing:  # it may have been read meanwhile
            told = _segments(name, journal.look(path, name))
    except FileNotFoundError:
        return
    except (OSError, ConfigError) as error:
        yield _unreadable(path, error, f"mv {quote(path)} {quote(path)}.unreadable && meshctl register {quote(name)}")
        return
    if health.damaged:
        what = f"{path}: {health.damaged} damaged records; the next start keeps them aside and goes on with the rest"
        yield Finding("warning", AREA, what, skew.restart(""))
    if gone := sum(count for number, count in mail.missing.items() if number in told):
        what = f"{gone} unread messages of {name} are gone from the disk; its inbox says how many are LOST"
        yield Finding("error", AREA, what, f"meshctl inbox {quote(name)} --limit {MAX_LIMIT}")
    if health.size + mail.size > LARGE:
        what = f"the mail of {name} takes {(health.size + mail.size) >> 20} MiB: so much is unread"
        yield Finding("warning", AREA, what, f"meshctl inbox {quote(name)}")


def _segments(name: str, health: journal.JournalHealth) -> dict[int, Segment]:
    """Those that the journal tells of."""
    core = AgentCore(name, Keys(""))
    for record in health.records:
        core.apply(record)
    return core.inbox.unread.segments


def _notify_logs(folder: str) -> Iterator[Finding]:
    if os.path.isdir(folder) and read_only(folder):
        return  # said of the folder
    for path in _all(folder, "notify-*.log"):
        there = quote(path)
        if not stat.S_ISREG(os.stat(path).st_mode):
            yield Finding("error", AREA, f"{path} is no file, and nothing can be told there", f"mv {there} {there}.old")
        elif not os.access(path, os.W_OK):
            yield Finding("error", AREA, f"the notify log {path} is not writable", f"chmod u+rw {there}")


def _unreadable(path: str, error: Exception, away: str) -> Finding:
    """`away` is the command for a file that is damaged beyond use."""
    if isinstance(error, ConfigError) and "newer agent-mesh" in error.message:
        return Finding("error", AREA, f"{error.message}; it is not used, and not touched", skew.upgrade())
    if os.path.exists(path) and not os.access(path, os.R_OK):
        return Finding("error", AREA, f"{path} is not readable", f"chmod u+rw {quote(path)}")
    return Finding("error", AREA, f"cannot read {path}: {error}" if path not in str(error) else str(error), away)


def _all(folder: str, pattern: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
