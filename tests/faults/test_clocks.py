"""Machines whose clocks are hours apart: mail, pings, leases, what is shown of them, and what is owed."""

from __future__ import annotations

import functools

import pytest

from tests.faults.machines import Machine, needs_a_compiler
from tests.faults.two import Two, received
from tests.helper import wait_until

HOURS = [-7200, 700, 7200]  # seconds that the clock of b is ahead
pytestmark = [needs_a_compiler, pytest.mark.timeout(180)]


@pytest.mark.parametrize("ahead", HOURS)
def test_clocks_that_are_apart_harm_nobody(two_with_clock: Two, ahead: int) -> None:
    a, b, _ = two_with_clock
    b.sleep(ahead)
    a.register("alice")
    b.register("bob")

    # A ping is as old as the store says, whichever of both sends it.
    for machine, target, sender in ((a, "bob", "alice"), (b, "alice", "bob")):
        done = machine.home.run("ping", target, "--from", sender, "--timeout", "20")
        assert done.stdout.startswith(f"pong from {target} in "), done.stderr

    # Each sees the other, as it was a moment ago.
    for machine, other in ((a, "bob"), (b, "alice")):
        shown = {entry["agent"]: entry for entry in machine.home.json("who")["agents"]}
        assert set(shown) == {"alice", "bob"}
        assert shown[other]["age"] < 120
        assert shown[other]["ts"] - shown[other]["since"] < 120

    # A name that is held stays so, and moves when it is asked for.
    refused = a.home.run("register", "bob")
    assert refused.returncode == 7, refused.stdout
    a.send("bob", ["m1"])
    received(b, "bob", 1)
    a.register("bob", "--takeover")
    wait_until(lambda: not b.hosts("bob"), "b has let it go")
    received(a, "bob", 1)


def owes_nothing(machine: Machine, asker: str) -> bool:
    return not machine.home.json("pending", asker)["entries"]


@pytest.mark.parametrize("ahead", HOURS)
def test_what_is_owed_across_clocks_falls_due_by_the_asker_s(two_with_clock: Two, ahead: int) -> None:
    """Nothing is asked again before its time, and the answer settles it."""
    a, b, _ = two_with_clock
    b.sleep(ahead)
    a.register("alice")
    b.register("bob")
    for machine, asker, asked, other in ((a, "alice", "bob", b), (b, "bob", "alice", a)):
        sent = machine.home.meshctl("send", asked, "?", "--from", asker, "--expect-reply", "--within", "600").split()[1]
        received(other, asked, 1)
        (entry,) = machine.home.json("pending", asker)["entries"]
        assert (entry["id"], entry["state"]) == (sent, "open")
        other.home.meshctl("reply", sent, "!", "--from", asked)
        wait_until(functools.partial(owes_nothing, machine, asker), "settled")
        other.home.meshctl("inbox", asked)
        machine.home.meshctl("inbox", asker)
