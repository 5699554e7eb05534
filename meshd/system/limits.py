"""What the system lets one process have."""

from __future__ import annotations

import contextlib
import resource

_FILES = (65_536, 10_240)  # macOS says that there is no hard limit, and refuses more than the second


def raise_file_limit() -> None:
    """An agent or a session holds two or three files: the usual soft limit of 1024 would end at 300 to 500 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in _FILES:
        reached = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        if soft >= reached:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (reached, hard))
            return
