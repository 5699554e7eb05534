"""Small things that the benchmarks share."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile (0 to 1) of the values, by rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def milliseconds(values: Sequence[float]) -> str:
    """`min`, median and p99 of times in seconds, shown in milliseconds."""
    ms = [1000 * value for value in values]
    return f"min {min(ms):.2f}  p50 {statistics.median(ms):.2f}  p99 {quantile(ms, 0.99):.2f} ms"


def scaled(number: int, share: float, step: int = 1) -> int:
    """That share of a number of rounds, in whole steps, and one step at least."""
    return max(1, round(number * share / step)) * step


def row(what: str, figure: str, aim: str = "") -> None:
    print(f"{what:<58} {figure}" + (f"   (aim: {aim})" if aim else ""), flush=True)
