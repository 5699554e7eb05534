"""Homes with real daemons and real stores, and waiting for conditions instead of sleeping."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from meshd.store.engine import binary

DEADLINE = 20.0


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """The first true value of the condition. Fails, naming `what`, after `deadline` seconds."""
    until = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        time.sleep(0.01)
    return value


async def eventually(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """`wait_until` for code on an event loop."""
    until = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        await asyncio.sleep(0.005)
    return value


class Store:
    """A server process of our own on a Unix socket. `options` are its command-line options."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.folder = folder
        # Not in the folder: a path under pytest's temporary folders may be too long for a socket.
        self._short = tempfile.TemporaryDirectory(prefix="ms")
        self.socket = os.path.join(self._short.name, "s")
        self._command = [program, "--port", "0", "--unixsocket", self.socket, "--dir", str(folder), *options]
        self.process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=self.socket, protocol=2)

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self.answers, "the store answers")

    def answers(self) -> bool:
        try:
            with self.client() as client:
                client.set_retry(Retry(NoBackoff(), 0))  # by default it asks a server that loads again, for seconds
                return bool(client.ping())
        except (redis.AuthenticationError, redis.BusyLoadingError):
            return True
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.resume()
            self.kill()
        self._short.cleanup()


def program(kind: str) -> str:
    """The server program of a kind: the embedded Valkey, or the redis-server on PATH."""
    return binary() if kind == "valkey" else "redis-server"


class Rpc:
    """A blocking client of the control socket, one JSON line at a time."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self._lines = self.socket.makefile("rb")
        self._id = 0

    def send(self, method: str, /, **params: Any) -> int:
        """Ask without waiting. A parameter `from` is given as `from_`."""
        self._id += 1
        named = {name.rstrip("_"): value for name, value in params.items()}
        self.raw(json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": named}).encode() + b"\n")
        return self._id

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> dict[str, Any]:
        """The next line. Fails with `EOFError` if the daemon closed the connection."""
        line = self._lines.readline()
        if not line:
            raise EOFError
        answer: dict[str, Any] = json.loads(line)
        return answer

    def call(self, method: str, /, **params: Any) -> Any:
        """The result; an error fails with its kind."""
        answer = self.answer(method, **params)
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    def answer(self, method: str, /, **params: Any) -> dict[str, Any]:
        """The whole answer, result or error; notifications before it are dropped."""
        request = self.send(method, **params)
        while (answer := self.read()).get("id") != request:
            pass
        return answer

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def __enter__(self) -> Rpc:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RpcError(Exception):
    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.kind: str = error["data"]["kind"]
        self.error = error


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
        """Start `meshd` as a child, and wait until it listens. `through`: a command that runs what follows it."""
        ours, theirs = os.pipe()
        with open(self.path / "meshd.out", "ab") as log:
            self.daemon = subprocess.Popen(
                [*through, sys.executable, "-m", "meshd", "--ready-fd", str(theirs), *options],
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
        self.run("down")
        store = os.path.join(self._run.name, "agent-mesh", "meshd.store")
        if os.path.exists(store):  # left by a daemon that was killed
            with contextlib.suppress(redis.RedisError), redis.Redis(unix_socket_path=store) as client:
                client.shutdown(nosave=True)
        self._run.cleanup()


@contextlib.contextmanager
def a_home(path: Path, redis_url: str | None = None, **variables: str) -> Iterator[Home]:
    home = Home(path, redis_url, **variables)
    try:
        yield home
    finally:
        home.close()
