"""What doctor says: one line a finding, and the command that mends or changes it."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from meshd.core.text import one_line


class Finding(NamedTuple):
    """`level`: ok, note, warning or error; a note is a choice that was not made, and nothing is wrong with it.

    `area` is stable: programs group by it. `next` can be pasted into a shell.
    """

    level: str
    area: str
    what: str
    next: str = ""


MARKS = {"ok": "✓", "note": "·", "warning": "!", "error": "✗"}
quote = shlex.quote


def shown(finding: Finding) -> str:
    """For a terminal. What a stranger wrote may be in it: an error of the store, an agent's name."""
    head = f"{MARKS[finding.level]} {one_line(finding.what)}\n"
    return head + (f"    next: {one_line(finding.next)}\n" if finding.next else "")


def ended(pid: int) -> str:
    """The part of a command that waits until the process has ended."""
    return f"while kill -0 {pid} 2>/dev/null; do sleep 0.1; done"
