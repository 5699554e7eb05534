"""An interactive shell on a pseudo-terminal, into which a test types as a person does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence

DEADLINE = 20.0
_CONTROLS = re.compile(rb"\x1b\[[0-9;?=><]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[=>]")


class Terminal:
    """A shell that shows what it is given; the deadline of every wait is `DEADLINE` seconds."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: str) -> None:
        ours, theirs = pty.openpty()
        self._fd = ours
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # fish will not work without one
        )
        os.close(theirs)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def until(self, mark: str) -> str:
        """What is shown up to and with the mark, without the terminal's controls."""
        shown = b""
        until = time.monotonic() + DEADLINE
        while mark.encode() not in _CONTROLS.sub(b"", shown):
            left = until - time.monotonic()
            assert left > 0, f"no {mark!r} within {DEADLINE:g} s: {shown!r}"
            shown += self._more(left)
        return _CONTROLS.sub(b"", shown).decode(errors="replace")

    def _more(self, timeout: float) -> bytes:
        if not select.select([self._fd], [], [], timeout)[0]:
            return b""
        return os.read(self._fd, 1 << 16)

    def run(self, line: str) -> None:
        """Run a line, and wait for its end."""
        self.type(f"{line}; echo RE''ADY\r")
        self.until("READY")

    def completed(self, line: str) -> list[str]:
        """The words that the shell has on its line after this was typed and Tab was pressed.

        The line is made into one that prints its words instead of being run.
        """
        self.type(f"{line}\t\x01printf '<%s>' \x05; echo E''ND\r")
        shown = self.until("END")
        found = re.findall(r"((?:<[^<>\n]*>)+)END", shown)
        assert found, shown
        return re.findall(r"<([^<>]*)>", found[-1])


@contextlib.contextmanager
def terminal(command: Sequence[str], env: Mapping[str, str], cwd: str) -> Iterator[Terminal]:
    made = Terminal(command, env, cwd)
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(made.process.pid, signal.SIGKILL)
        made.process.wait()
        os.close(made._fd)
