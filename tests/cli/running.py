"""A `meshctl` in the background, read line by line with a deadline."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator

from tests.helper import DEADLINE, Home


class Running:
    """Standard output of a process as it comes. A line that does not come fails the test instead of hanging it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._data = b""
        self._ended = False

    def line(self, deadline: float = DEADLINE) -> str:
        """The next line, without its end. Fails if the output ends first, or none comes in time."""
        until = time.monotonic() + deadline
        while b"\n" not in self._data:
            assert not self._ended, f"the output ended: {self._data!r} {self.errors()}"
            assert self._more(until - time.monotonic()), f"no line within {deadline:g} s: {self._data!r}"
        line, _, self._data = self._data.partition(b"\n")
        return line.decode()

    def lines(self, count: int) -> list[str]:
        return [self.line() for _ in range(count)]

    def _more(self, timeout: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._fd, selectors.EVENT_READ)
            if not selector.select(max(0.0, timeout)):
                return False
        chunk = os.read(self._fd, 1 << 16)
        self._ended = not chunk
        self._data += chunk
        return True

    def errors(self) -> str:
        """Standard error of a process that has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self) -> tuple[int, str, str]:
        """Wait for its own end: exit code, the rest of standard output, standard error."""
        until = time.monotonic() + DEADLINE
        while not self._ended:
            assert self._more(until - time.monotonic()), f"still running after {DEADLINE:g} s: {self._data!r}"
        code = self.process.wait(DEADLINE)
        return code, self._data.decode(), self.errors()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(home: Home, *arguments: str, **variables: str) -> Iterator[Running]:
    """Run `meshctl` in the background; killed at the end if it has not ended by itself."""
    process = home.begin(*arguments, **variables)
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
