"""Users: their files, their programs, their daemon."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from tests.helper.rpc import Rpc
from tests.helper.waiting import DEADLINE


class Home:
    """A user with an empty home: its own daemon, its own files. `env` is what its programs see."""

    def __init__(self, path: Path, redis_url: str | None = None, **variables: str) -> None:
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)
        # The socket's folder is short for the same reason as a store's.
        self._run = tempfile.TemporaryDirectory(prefix="mr")
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("AGENT_MESH_", "XDG_"))}
        self.env = keep | {"HOME": str(path), "XDG_RUNTIME_DIR": self._run.name, "PYTHONWARNINGS": "default"}
        if redis_url is not None:
            self.env["AGENT_MESH_REDIS_URL"] = redis_url
        self.env |= variables
        self.daemon: subprocess.Popen[bytes] | None = None
        self.through: Sequence[str] = ()  # a command that runs what follows it: what `start` puts before the daemon

    @property
    def socket(self) -> str:
        return os.path.join(self._run.name, "agent-mesh", "meshd.sock")

    @property
    def state(self) -> Path:
        return self.path / ".local" / "state" / "agent-mesh"

    @property
    def cache(self) -> Path:
        return self.path / ".cache" / "agent-mesh"

    @property
    def config(self) -> Path:
        return self.path / ".config" / "agent-mesh" / "config.toml"

    def start(self, *options: str, through: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start `meshd` as a child, and wait until it listens. `through` is for this time, instead of its own."""
        ours, theirs = os.pipe()
        with open(self.path / "meshd.out", "ab") as log:
            self.daemon = subprocess.Popen(
                [*(through or self.through), sys.executable, "-m", "meshd", "--ready-fd", str(theirs), *options],
                env=self.env,
                stdout=log,
                stderr=log,
                pass_fds=[theirs],
                start_new_session=True,
            )
        os.close(theirs)
        with os.fdopen(ours) as pipe:
            said = pipe.read()
        assert said == "ready\n", said + self.log()
        return self.daemon

    def log(self) -> str:
        return (self.path / "meshd.out").read_text()

    def kill(self) -> None:
        """kill -9 of the daemon that `start` started. An embedded store goes on running."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(DEADLINE)

    def run(
        self, *arguments: str, stdin: str | bytes | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """A whole `meshctl` process."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-m", "meshctl", *arguments],
            env=self.env | variables,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=60,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def meshctl(self, *arguments: str, stdin: str | bytes | None = None, **variables: str) -> str:
        """Standard output of a `meshctl` that must succeed."""
        done = self.run(*arguments, stdin=stdin, **variables)
        assert done.returncode == 0, f"meshctl {arguments}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str, **variables: str) -> Any:
        return json.loads(self.meshctl(*arguments, "--json", **variables))

    def begin(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """A `meshctl` that runs in the background. The caller waits for it, or ends it."""
        return subprocess.Popen(
            [sys.executable, "-m", "meshctl", *arguments],
            env=self.env | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rpc(self) -> Rpc:
        return Rpc(self.socket)

    def notify_lines(self, name: str) -> list[str]:
        """All lines of the notify log, the rotated files first."""
        names = [f"notify-{name}.log{suffix}" for suffix in (".3", ".2", ".1", "")]
        files = [self.cache / file for file in names if (self.cache / file).exists()]
        return [line for file in files for line in file.read_text().splitlines()]

    def _may_run(self) -> bool:
        """Whether a daemon runs for this home, or is being started, or somebody listens in its place."""
        if "AGENT_MESH_SOCKET" in self.env or self.env.get("XDG_RUNTIME_DIR") != self._run.name:
            return True  # the test has put its place elsewhere
        return os.path.exists(self.socket) or any(_is_locked(self.socket + end) for end in (".lock", ".start"))

    def close(self) -> None:
        """Stop whatever runs for this home: its daemon, however it was started, and its store."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGCONT)
            self.daemon.terminate()
            try:
                self.daemon.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        if self._may_run():
            self.run("down")
        store = os.path.join(self._run.name, "agent-mesh", "meshd.store")
        if os.path.exists(store):  # left by a daemon that was killed
            with contextlib.suppress(redis.RedisError), redis.Redis(unix_socket_path=store) as client:
                client.shutdown(nosave=True)
        self._run.cleanup()


def _is_locked(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def a_home(path: Path, redis_url: str | None = None, **variables: str) -> Iterator[Home]:
    home = Home(path, redis_url, **variables)
    try:
        yield home
    finally:
        home.close()
