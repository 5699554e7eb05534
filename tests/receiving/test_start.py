"""The agents of the last run, when the daemon starts."""

from __future__ import annotations

from tests.helper import eventually
from tests.receiving.daemon import Daemon, has, read_elsewhere


async def test_an_agent_that_cannot_go_on_when_the_daemon_starts_keeps_nobody_else(daemon: Daemon) -> None:
    """It was read elsewhere meanwhile, which its disk does not take: the others are received for at once."""
    bob = await daemon.host("bob")
    await daemon.host("dora")
    daemon.send("bob", "one")
    await eventually(has(daemon, "bob", "one"), "it has it")
    hang = daemon.hang("bob")
    await daemon.stop()
    read_elsewhere(daemon, "bob", bob.core.inbox.position.at)
    hang.begin()
    await daemon.start()
    await eventually(lambda: hang.waiting, "it hangs")
    daemon.send("dora", "hers")
    daemon.broadcast("all")
    await eventually(has(daemon, "dora", "hers", "all"), "dora has both")
    hang.let_go()
    await eventually(has(daemon, "bob", "all"), "bob goes on")
