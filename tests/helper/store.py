"""Real stores, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from meshd.store.engine import binary
from tests.helper.waiting import wait_until


class Store:
    """A server process of our own on a Unix socket. `options` are its command-line options."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.folder = folder
        # Not in the folder: a path under pytest's temporary folders may be too long for a socket.
        self._short = tempfile.TemporaryDirectory(prefix="ms")
        self.socket = os.path.join(self._short.name, "s")
        self.command = [program, "--port", "0", "--unixsocket", self.socket, "--dir", str(folder), *options]
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
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
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
