"""The clocks of this machine, each with its type (meshd/core/clock.py)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshd.core.clock import Mono, Wall


def wall() -> Wall:
    return time.time()  # type: ignore[return-value]


def mono() -> Mono:
    return time.monotonic()  # type: ignore[return-value]
