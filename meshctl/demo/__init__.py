"""`meshctl demo`: two agents exchange messages, with a daemon and a store of their own, and leave nothing behind."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator

from meshctl.client import complain, write
from meshctl.demo import commands, sessions
from meshctl.demo.stage import Failed, Stage


def run(*, mcp: bool = False) -> int:
    """Play the story in a temporary home, with commands or with MCP sessions. 0 if every step did what it should."""
    home = tempfile.mkdtemp(prefix="agent-mesh-demo-")
    stage = Stage(home)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        stack.callback(stage.clear)
        try:
            with _ends_on_signals():
                (sessions.play if mcp else commands.play)(stage)
        except Failed as failed:
            complain(f"the demo failed: {failed}\n  next: meshctl doctor\n")
            return 1
    write(1, "\nThat was a real daemon with a real store. Both are gone again, with all they wrote.\n")
    return 0


@contextlib.contextmanager
def _ends_on_signals() -> Iterator[None]:
    """SIGTERM leaves nothing behind either."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
