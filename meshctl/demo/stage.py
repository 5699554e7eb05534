"""Where a demo plays: a home of its own, and `meshctl` run in it as a user would type it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

TIMEOUT = 60


class Failed(Exception):
    """A step did not do what it shows."""


class Stage:
    """Runs `meshctl` in the temporary home, showing each line as a user would type it. `show` is given what to show."""

    def __init__(self, home: str, show: Callable[[bytes], None]) -> None:
        self._show = show
        self._begun: list[subprocess.Popen[Any]] = []
        run_dir = os.path.join(home, "run")
        os.mkdir(run_dir, 0o700)
        # Nothing of the user's own mesh: neither its store nor its names.
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AGENT_MESH_")} | {
            "HOME": home,
            "XDG_RUNTIME_DIR": run_dir,
            "XDG_STATE_HOME": os.path.join(home, "state"),
            "XDG_CACHE_HOME": os.path.join(home, "cache"),
            "XDG_CONFIG_HOME": os.path.join(home, "config"),
        }

    def command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-P", "-m", "meshctl", *arguments]

    def write(self, text: str) -> None:
        self._show(text.encode())

    def say(self, text: str) -> None:
        self.write(f"\n{text}\n")

    def run(self, *arguments: str) -> tuple[str, str]:
        """What a command prints: its data, and its talk."""
        process = self.spawn(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate(timeout=TIMEOUT)
        if process.returncode != 0:
            raise Failed(f"{typed(arguments)}: {err.strip() or out.strip()}")
        return out, err

    def show(self, *arguments: str) -> str:
        """Run a command as if a user had typed it; its talk."""
        self.write(f"$ {typed(arguments)}\n")
        out, err = self.run(*arguments)
        self.write(out + err)
        return err

    def begin(self, *arguments: str) -> tuple[tuple[str, ...], subprocess.Popen[str]]:
        self.write(f"$ {typed(arguments)} &\n")
        return arguments, self.spawn(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def spawn(self, arguments: tuple[str, ...], **options: Any) -> subprocess.Popen[Any]:
        """A `meshctl` that runs until it ends, or until all is cleared."""
        with _undisturbed():
            process = subprocess.Popen(self.command(arguments), env=self.env, **options)
            self._begun.append(process)
        return process

    def end(self, begun: tuple[tuple[str, ...], subprocess.Popen[str]], expected: str) -> None:
        arguments, process = begun
        out, err = process.communicate(timeout=TIMEOUT)
        self.write(out)
        if out.strip() != expected:
            raise Failed(f"{typed(arguments)} printed {out!r} {err!r}")

    def clear(self) -> None:
        """End what runs, and the daemon; also one that an interrupted command is just starting: `up` waits for it."""
        for process in self._begun:
            process.terminate()
            process.wait(TIMEOUT)
            for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
                stream.close()
        for command in ("up", "down"):
            subprocess.run(self.command((command,)), env=self.env, capture_output=True, timeout=TIMEOUT, check=False)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A signal that comes meanwhile is heard afterwards: what begins must be known to whoever is to end it."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def typed(arguments: tuple[str, ...]) -> str:
    return "meshctl " + " ".join(f'"{a}"' if " " in a or "?" in a else a for a in arguments)
