"""Processes, as the system tells of them."""

from __future__ import annotations

from pathlib import Path


def state_of(pid: int) -> str:
    """The letter of its state, as in proc(5): `S` sleeps, `T` is stopped, `Z` is dead; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    """Whether the process is there, and not only waits for its parent to notice its end."""
    return state_of(pid) not in ("", "Z")
