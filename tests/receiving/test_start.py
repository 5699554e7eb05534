"""The agents of the last run, when the daemon starts."""

from __future__ import annotations

import pytest

from meshd.receiving.agent import Agent
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


async def test_a_name_whose_mail_comes_while_the_daemon_stops_is_hosted_after_it(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease was given up a moment ago, and not to another daemon."""
    bob = await daemon.host("bob")
    leases = daemon.mesh.leases
    release = leases.release

    async def release_and_hear(agent: Agent) -> None:
        await release(agent)
        daemon.send("bob", "late")
        await eventually(lambda: not bob.is_running, "its reader was refused the lease")

    monkeypatch.setattr(leases, "release", release_and_hear)
    await daemon.stop()
    await daemon.start()
    await eventually(has(daemon, "bob", "late"), "it is hosted, and has it")
