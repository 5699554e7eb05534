"""The log as the journal of systemd takes it: one entry a record, with fields that can be searched for.

`journalctl --user AGENT_MESH_AGENT=bob AGENT_MESH_EVENT=message.received`, `AGENT_MESH_MESSAGE_ID=…`. What a field
holds is named here one by one: a record's raw arguments may hold anything, and are not passed on.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

# What `extra` may tell of a record -> the journal's field.
FIELDS = {"agent": "AGENT_MESH_AGENT", "event": "AGENT_MESH_EVENT", "message_id": "AGENT_MESH_MESSAGE_ID"}
IDENTIFIER = "meshd"
PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"  # where nobody adds time and level


def handler(environ: Mapping[str, str] = os.environ, stderr: int = 2) -> logging.Handler:
    """The journal's own protocol where that is what standard error leads to; else plain standard error."""
    made: logging.Handler = logging.StreamHandler()
    if not leads_to_journal(environ, stderr):
        made.setFormatter(logging.Formatter(PLAIN))
        return made
    try:
        made = JournalHandler(importlib.import_module("systemd.journal").send)
    except ImportError:
        made.setFormatter(_WithPriority("%(name)s: %(message)s"))
    return made


def leads_to_journal(environ: Mapping[str, str], stderr: int) -> bool:
    """Whether the journal reads that file: `$JOURNAL_STREAM` is its device and inode (systemd.exec(5)).

    The variable alone proves nothing: it is inherited by programs whose output was sent elsewhere, and without a
    journal the handler would drop every line in silence.
    """
    try:
        status = os.fstat(stderr)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def priority(level: int) -> int:
    """syslog(3)'s number for a level of `logging`."""
    return next((number for least, number in ((50, 2), (40, 3), (30, 4), (20, 6)) if level >= least), 7)


class JournalHandler(logging.Handler):
    """Sends each record by `send`, which is systemd.journal's."""

    def __init__(self, send: Callable[..., Any]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: dict[str, Any] = {
                "PRIORITY": str(priority(record.levelno)),
                "SYSLOG_IDENTIFIER": IDENTIFIER,
                "LOGGER": record.name,
                "CODE_FILE": record.pathname,
                "CODE_LINE": record.lineno,
                "CODE_FUNC": record.funcName or "",
            }
            for attribute, field in FIELDS.items():
                if value := getattr(record, attribute, None):
                    fields[field] = _utf8(str(value))
            self._send(_utf8(self.format(record)), **fields)
        except Exception:  # logging's own rule: a log that fails is said on standard error, and breaks nothing
            self.handleError(record)


class _WithPriority(logging.Formatter):
    """Plain lines for the journal: each begins with its priority (sd-daemon(3)); the journal adds time and name."""

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{priority(record.levelno)}>"
        return "\n".join(mark + line for line in super().format(record).split("\n"))


def _utf8(text: str) -> str:
    """What can be sent: a file's name may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()
