"""What the tests of two machines share."""

from __future__ import annotations

from typing import NamedTuple

from tests.faults.machines import History, Machine
from tests.helper import Store, wait_until


class Two(NamedTuple):
    """`b` is the one to which things happen."""

    a: Machine
    b: Machine
    store: Store


def received(machine: Machine, name: str, count: int, deadline: float = 20) -> None:
    wait_until(lambda: machine.unread(name) >= count, f"{machine.label} has {count} for {name}", deadline)


def held_by_b(two: Two, name: str, unread: int) -> History:
    """A name that b holds, and so many unread messages on b's disk."""
    history = History(name)
    two.b.register(name)
    two.a.send(name, history.new(unread))
    received(two.b, name, unread)
    return history


def goes_on_at_a(two: Two, history: History) -> None:
    """What is sent from now on comes at a."""
    two.a.send(history.name, history.new(2))
    history.drain_all(two.a)


def told(machine: Machine, said: str, name: str) -> str:
    return "\n".join([said, *machine.home.notify_lines(name)])
