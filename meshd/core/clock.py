"""Clocks that must not be mixed up: told apart by type, so that a checker finds where one is taken for another.

Wall time goes on while a machine sleeps, and jumps when somebody sets it. Monotonic time does neither. The wall clocks
of two machines may be hours apart: what both look at is told by the store's.
"""

from __future__ import annotations

from typing import NewType

Wall = NewType("Wall", float)  # seconds since 1970, as `time.time()` gives them
Mono = NewType("Mono", float)  # seconds since some moment of this boot, as `time.monotonic()` gives them
Stored = NewType("Stored", float)  # seconds since 1970, as the store's clock shows them
