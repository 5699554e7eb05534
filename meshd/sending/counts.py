"""What the store counted last for each sender and target: a store that went back goes on from there."""

from __future__ import annotations

KEPT = 10_000  # pairs


class SendCounts:
    """The last count of each pair that was used lately. Of others, what a failover takes is not counted."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._counts: dict[tuple[str, str], int] = {}  # the one that was used last is the last

    def last(self, pair: tuple[str, str]) -> int:
        """What is known to be counted, 0 if nothing is."""
        return self._counts.get(pair, 0)

    def counted(self, pair: tuple[str, str], number: int) -> None:
        """The store says that this was the pair's send of that number."""
        self._counts[pair] = max(number, self._counts.pop(pair, 0))
        if len(self._counts) > self._kept:
            del self._counts[next(iter(self._counts))]

    def all(self) -> list[tuple[str, str, int]]:
        """Sender, target and count of each pair; the one that was used last is the last."""
        return [(sender, target, number) for (sender, target), number in self._counts.items()]
