"""The notify log of one agent: what could not be written waits, and holds nothing up."""

from __future__ import annotations

from meshd.receiving.health import NOTIFY
from tests.helper import eventually
from tests.receiving.daemon import Daemon, has, obstructed


async def test_lines_wait_until_the_notify_log_can_be_written(daemon: Daemon) -> None:
    """In order, and the agent receives meanwhile."""
    bob = await daemon.host("bob")
    with obstructed(daemon.notify("bob")):
        for n in range(3):
            daemon.send("bob", f"m{n}")
            await eventually(has(daemon, "bob", f"m{n}"), "it is received")
        await eventually(lambda: bob.health.of(NOTIFY), "it is said")
    await eventually(lambda: len(daemon.lines("bob")) == 3, "the lines are there")
    assert [line.split()[-1] for line in daemon.lines("bob")] == ["[m0]", "[m1]", "[m2]"]
    await eventually(lambda: bob.health.trouble is None, "it is well")


async def test_lines_that_waited_when_the_daemon_ended_appear_with_no_further_mail(daemon: Daemon) -> None:
    """A start finds the log as broken as it was left, says so, and writes the last lines once it can."""
    await daemon.host("bob")
    with obstructed(daemon.notify("bob")):
        daemon.send("bob", "one")
        await eventually(has(daemon, "bob", "one"), "it is received")
        await daemon.stop()
        await daemon.start()
        await eventually(lambda: daemon.agent("bob").health.of(NOTIFY), "it is said")
    await eventually(lambda: len(daemon.lines("bob")) == 1, "the line is there")
    await eventually(lambda: daemon.agent("bob").health.trouble is None, "it is well")
