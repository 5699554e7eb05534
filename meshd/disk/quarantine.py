"""Entries that could not be decoded, kept as they came, for a person to look at."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

import msgspec

from meshd.core.message import Malformed

LIMIT = 4 << 20


def keep(path: str, entries: Sequence[Malformed]) -> None:
    """Append one JSON line an entry: its id, why, and its fields in base64. The file before is kept as `.1`."""
    if os.path.exists(path) and os.path.getsize(path) > LIMIT:
        os.replace(path, path + ".1")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
        for entry in entries:
            fields = [base64.b64encode(field[: 1 << 20]).decode() for field in entry.fields]
            file.write(msgspec.json.encode({"at": entry.at, "reason": entry.reason, "fields": fields}) + b"\n")
