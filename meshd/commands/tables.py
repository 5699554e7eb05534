"""Times, wakes and tables as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshd.system import clock


def ago(ts: float | None) -> str:
    """How long ago, for a table: `5s`, `3m`, `2h`, `4d`."""
    if ts is None:
        return "-"
    return duration(clock.wall() - ts)


def duration(seconds: float) -> str:
    seconds = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def shown_worked(worked: dict[str, Any] | None) -> str:
    """The last wake that was followed by a read, for a table."""
    return f"{worked['rung']}, read after {duration(worked['waited'])}" if worked else "-"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)
