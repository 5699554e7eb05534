"""`meshctl demo`: two agents exchange messages, with a daemon and a store of their own, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from meshctl.client import complain, write

TIMEOUT = 60


class _Failed(Exception):
    """A step did not do what it shows."""


def run() -> int:
    """Play the whole story in a temporary home. 0 if every step did what it should."""
    home = tempfile.mkdtemp(prefix="agent-mesh-demo-")
    stage = _Stage(home)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        stack.callback(stage.clear)
        try:
            with _ends_on_signals():
                _play(stage)
        except _Failed as failed:
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


def _play(stage: _Stage) -> None:
    stage.say("Two agents. The first command starts the daemon, and the daemon its own store:")
    stage.show("register", "alice", "--role", "writes code")
    stage.show("register", "bob", "--role", "reviews it")

    stage.say("bob waits for mail; alice sends some:")
    waiting = stage.begin("listen", "bob", "--timeout", "30")
    stage.show("send", "bob", "the build is green", "--from", "alice")
    stage.end(waiting, "[DIRECT from alice] the build is green")

    stage.say("alice asks and waits for the answer:")
    asking = stage.begin("request", "bob", "which branch shall I merge?", "--from", "alice", "--timeout", "30")
    hint = stage.show("listen", "bob", "--timeout", "30")  # "… waits for a reply: meshctl reply ID TEXT --from bob"
    stage.show("reply", hint.partition("meshctl reply ")[2].split()[0], "main, please", "--from", "bob")
    stage.end(asking, "main, please")

    stage.say("To everyone, and what bob's notify log says of it all:")
    stage.show("broadcast", "lunch", "--from", "alice")
    stage.show("inbox", "bob")
    path, _ = stage.run("path", "notify", "bob")
    with open(path.strip(), encoding="utf-8") as file:
        write(1, file.read())

    stage.say("Who is there:")
    stage.show("ping", "bob", "--from", "alice")
    stage.show("who")


class _Stage:
    """Runs `meshctl` in the temporary home, showing each line as a user would type it."""

    def __init__(self, home: str) -> None:
        run_dir = os.path.join(home, "run")
        os.mkdir(run_dir, 0o700)
        # Nothing of the user's own mesh: neither its store nor its names.
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("AGENT_MESH_")} | {
            "HOME": home,
            "XDG_RUNTIME_DIR": run_dir,
            "XDG_STATE_HOME": os.path.join(home, "state"),
            "XDG_CACHE_HOME": os.path.join(home, "cache"),
            "XDG_CONFIG_HOME": os.path.join(home, "config"),
        }

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-P", "-m", "meshctl", *arguments]

    def say(self, text: str) -> None:
        write(1, f"\n{text}\n")

    def run(self, *arguments: str) -> tuple[str, str]:
        """What a command prints: its data, and its talk."""
        done = subprocess.run(self._command(arguments), env=self._env, capture_output=True, text=True, timeout=TIMEOUT)
        if done.returncode != 0:
            raise _Failed(f"{_line(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout, done.stderr

    def show(self, *arguments: str) -> str:
        """Run a command as if a user had typed it; its talk."""
        write(1, f"$ {_line(arguments)}\n")
        out, err = self.run(*arguments)
        write(1, out + err)
        return err

    def begin(self, *arguments: str) -> tuple[tuple[str, ...], subprocess.Popen[str]]:
        write(1, f"$ {_line(arguments)} &\n")
        return arguments, subprocess.Popen(
            self._command(arguments), env=self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self, begun: tuple[tuple[str, ...], subprocess.Popen[str]], expected: str) -> None:
        arguments, process = begun
        out, err = process.communicate(timeout=TIMEOUT)
        write(1, out)
        if out.strip() != expected:
            raise _Failed(f"{_line(arguments)} printed {out!r} {err!r}")

    def clear(self) -> None:
        subprocess.run(self._command(("down",)), env=self._env, capture_output=True, timeout=TIMEOUT, check=False)


def _line(arguments: tuple[str, ...]) -> str:
    return "meshctl " + " ".join(f'"{a}"' if " " in a or "?" in a else a for a in arguments)
