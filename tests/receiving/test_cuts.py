"""Connections that break while the store is well."""

from __future__ import annotations

import random
from functools import partial

import pytest

from tests.helper import eventually
from tests.receiving.daemon import Daemon, has

CUTS = 15


def is_new(daemon: Daemon, known: int) -> bool:
    return daemon.connections.get("bob") != known


async def test_cuts_do_not_add_up(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of them the agent receives again as soon as after the first, whatever comes of the others."""
    await daemon.host("bob")
    pauses: list[float] = []
    uniform = random.uniform

    def noted(low: float, high: float) -> float:
        pauses.append(high)
        return uniform(low, high)

    monkeypatch.setattr("meshd.core.backoff.random.uniform", noted)
    for k in range(CUTS):
        known = daemon.connections["bob"]
        daemon.store.client_kill_filter(_id=known)
        await eventually(partial(is_new, daemon, known), "it is connected again")
        daemon.send("bob", f"m{k}")
        await eventually(has(daemon, "bob", f"m{k}"), "it receives")
    assert len(pauses) >= CUTS
    assert max(pauses) < 1, "seconds at most that a reader waited before it tried again"
