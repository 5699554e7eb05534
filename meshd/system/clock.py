"""The clocks of this machine, each with its type (meshd/core/clock.py)."""

from __future__ import annotations

import time

from meshd.core.clock import Mono, Wall
from meshd.core.lease import Now


def wall() -> Wall:
    return Wall(time.time())


def mono() -> Mono:
    return Mono(time.monotonic())


def now() -> Now:
    """This moment, by both."""
    return Now(wall(), mono())
