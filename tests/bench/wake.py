"""How soon an idle session of the real Claude Code starts its turn after a `send`."""

from __future__ import annotations

import time
from pathlib import Path

from tests.bench.figures import milliseconds, row, scaled
from tests.clients.claude import Claude, missing
from tests.clients.messages_api import MessagesApi
from tests.clients.test_sessions import attached, reader
from tests.helper import a_home, wait_until

WAKES = 10


def wake(folder: Path, share: float) -> None:
    """From the start of a whole `meshctl send` to the request that the woken session makes of its model."""
    if why := missing():
        row("send to the turn of an idle Claude Code", f"not measured: {why}")
        return
    times = []
    with a_home(folder / "home") as home, MessagesApi(reader) as api:
        user = Claude.of(home, folder / "bob", api)
        user.server("agent-mesh", "meshctl", "mcp")
        user.allow("mcp__agent-mesh")
        with user.session() as session:
            attached(home)
            with home.rpc() as rpc:
                for k in range(scaled(WAKES, share)):
                    before, started = len(api.turns), time.monotonic()
                    rpc.call("send", target="bob", message=f"message {k}", from_="alice")
                    times.append(api.wait_for("call mesh_inbox", before).at - started)
                    wait_until(lambda: rpc.call("status")["agents"][0]["unread"] == 0, "the mail is read")
                    session.wait_idle()
    row(f"send to the turn of an idle Claude Code, {len(times)} times", milliseconds(times), "p50 under 500 ms")
