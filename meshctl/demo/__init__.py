"""`meshctl demo`: two agents exchange messages, with a daemon and a store of their own, and leave nothing behind."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator

from meshctl.client import complain
from meshctl.demo import mcp_story, terminal_story
from meshctl.demo.stage import Failed, Stage
from meshctl.printing import JsonLines, plain


def run(*, mcp: bool = False, as_json: bool = False) -> int:
    """Play the story in a temporary home, with commands or with MCP sessions. 0 if every step did what it should."""
    show = JsonLines().write if as_json else plain
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(_ends_on_signals())
        home = tempfile.mkdtemp(prefix="agent-mesh-demo-")
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        stage = Stage(home, show)
        stack.callback(stage.clear)
        stack.callback(deaf)
        try:
            (mcp_story.play if mcp else terminal_story.play)(stage)
        except Failed as failed:
            complain(f"the demo failed: {failed}\n  next: meshctl doctor\n")
            return 1
    show(b"\nThat was a real daemon with a real store. Both are gone again, with all they wrote.\n")
    return 0


@contextlib.contextmanager
def _ends_on_signals() -> Iterator[Callable[[], None]]:
    """SIGTERM, and the terminal's end, leave nothing behind either: all is cleared, and a second signal is not heard.

    Gives what ends the hearing, for the time of the clearing.
    """

    def end(number: int, frame: object) -> None:
        deaf()
        raise KeyboardInterrupt

    def deaf() -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:  # as by nohup
                signal.signal(number, end)
        yield deaf
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
