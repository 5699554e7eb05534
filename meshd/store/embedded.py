"""The private Valkey that the daemon starts, finds again, looks after and stops.

It listens on a Unix socket only, writes its log on, and never evicts. When the daemon is killed it goes on
running, and the next daemon finds it by its socket and its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys

from redis.asyncio.connection import AbstractConnection

from meshd.core.backoff import Backoff
from meshd.disk.files import private_dir, replace
from meshd.disk.worker import DiskWorker
from meshd.errors import ConfigError, StoreDown, StoreError
from meshd.observing.outage import Outage
from meshd.store import endpoint, replies
from meshd.store.bounds import BOUND
from meshd.store.engine import binary, configuration
from meshd.store.link import Link
from meshd.store.log_sync import LogSync

log = logging.getLogger("meshd.store")

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0


class Embedded:
    """An `Endpoint` that also runs its server. `folder` holds its data, `socket` is where it listens."""

    def __init__(self, folder: str, socket: str, disk: DiskWorker) -> None:
        self.folder = folder
        self.socket = socket
        self.shown = "embedded"
        self.trouble: str | None = None
        self.pid: int | None = None
        self.restarts = 0
        self._log = LogSync(folder, disk)
        self.written = self._log.written
        self._direct = endpoint.unix(socket, self.shown)
        self.slots = self._direct.slots
        self.pulse = self._direct.pulse
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._known = asyncio.Event()  # set once it is ready, or is in trouble
        self._outage = Outage(log, logging.ERROR)

    async def connection(self, bound: int = BOUND) -> AbstractConnection:
        """A connection once the server runs. Raises `StoreDown` as soon as it is known that it does not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT):
                await self._known.wait()
        if not self._ready.is_set():
            why = self.trouble or "it takes too long"
            raise StoreDown(f"the embedded store does not start: {why}", f"see {self.log_file}")
        return await self._direct.connection(bound)

    async def renew(self) -> bool:
        """It wants none."""
        return False

    def failed(self, why: str) -> None:
        """Tell whoever waits for the server why there is none; it is tried again."""
        self.trouble = why
        self._known.set()
        self._outage.begin(f"the embedded store does not start: {why}")

    def room(self) -> int:
        """Bytes that are free where it writes, if that can be known."""
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return sys.maxsize  # the store will say what is wrong
        return disk.f_bavail * disk.f_frsize

    @property
    def log_file(self) -> str:
        return os.path.join(self.folder, "valkey.log")

    @property
    def config_file(self) -> str:
        return os.path.join(self.folder, "valkey.conf")

    def prepare(self) -> str:
        """Make the folder and the configuration; the program to run. Raises `ConfigError`."""
        program = binary()
        private_dir(self.folder)
        private_dir(os.path.dirname(self.socket))
        try:
            replace(self.config_file, configuration(self.folder, self.socket, self.log_file).encode())
        except OSError as error:
            raise ConfigError(f"cannot write {self.config_file}: {error.strerror}", "free space there") from None
        return program

    async def run(self) -> None:
        """Keep the server running until cancelled; then stop it so that its files are consistent."""
        program = self.prepare()
        backoff = Backoff(base=0.1, cap=10.0)
        try:
            while True:
                if not await self._find():
                    await self._start(program)
                if self._ready.is_set():
                    backoff.reset()
                    await self._until_gone()
                    # Whoever uses it finds that out, too, and says so in the log.
                    log.debug("the embedded store (pid %s) is gone; starting it again", self.pid)
                    self._ready.clear()
                    self._known.clear()
                    self.restarts += 1
                else:
                    await asyncio.sleep(backoff.next())
        finally:
            await self._log.end()
            await self._stop()

    async def _find(self) -> bool:
        """Whether a server of ours already runs: left by a daemon that was killed."""
        try:
            link = await Link.open(self._direct)
            try:
                info = replies.facts(await link.call("INFO", "server"))
                reply = await link.call("CONFIG", "GET", "dir")
                await link.call("CONFIG", "SET", "appendfsync", "no")  # an older version has started it with `everysec`
            finally:
                await link.close()
        except StoreError as error:
            if error.kind == "store_busy":  # loading: it will answer
                return await self._await_loaded() and await self._find()
            if _is_listening(self.socket):
                # Stopped or overloaded. A second server on its files would ruin them.
                raise StoreDown(f"the server on {self.socket} does not answer", "meshctl doctor") from None
            return False
        folder = os.fsdecode(reply[1]) if replies.are(reply, bytes, bytes) else "an unknown folder"
        pid = info.get("process_id", "")
        if not re.fullmatch("[0-9]{1,10}", pid) or not _same_folder(folder, self.folder):
            raise ConfigError(
                f"another server listens on {self.socket}, with its data in {folder}",
                "stop it, or set AGENT_MESH_SOCKET",
            )
        log.info("found the embedded store again (pid %s)", pid)
        self._is_ready(int(pid))
        return True

    async def _start(self, program: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        # A session of its own: a Ctrl-C in the daemon's terminal is not for the store.
        try:
            self._process = await asyncio.create_subprocess_exec(
                program,
                self.config_file,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self.failed(f"{program}: {error.strerror}")
            return
        if await self._await_loaded():
            self._is_ready(self._process.pid)
        else:
            self.failed(self._last_words())
            await self._end_process()

    async def _await_loaded(self) -> bool:
        """Wait until the server answers, or its process is gone, or the time is up."""
        pause = 0.002
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while self._process is None or self._process.returncode is None:
                    try:
                        link = await Link.open(self._direct)
                        await link.call("PING")
                        await link.close()
                        return True
                    except StoreError:
                        # The server has no way to tell us that its socket is there.
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, 0.1)
        except TimeoutError:
            pass
        return False

    def _is_ready(self, pid: int) -> None:
        self.pid = pid
        self.trouble = None
        self._outage.end("the embedded store runs")
        self._ready.set()
        self._known.set()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError), open(self.log_file, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.readlines()[-20:] if line.strip()]
            fatal = [line for line in lines if " # " in line or "rror" in line or "atal" in line]
            if lines:
                return (fatal or lines)[-1]
        return "it ended without a word"

    async def _until_gone(self) -> None:
        """Returns when the server's process has ended."""
        if self._process is not None and self._process.pid == self.pid:
            await self._process.wait()
            self._process = None
            return
        # Not our child: a connection that says nothing ends when the server does.
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(self.socket)
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

    async def _stop(self) -> None:
        """SHUTDOWN: the append-only file is synced before the process ends."""
        if not self._ready.is_set():
            if self._process is not None:  # it does not answer yet, so it cannot be asked
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
            await self._end_process()
            return
        self._ready.clear()
        with contextlib.suppress(StoreError):
            link = await Link.open(self._direct)
            # Ends without a reply; the log is synced by a clean shutdown.
            with contextlib.suppress(StoreError):
                await link.call("SHUTDOWN", "NOSAVE", timeout=STOP_TIMEOUT)
            await link.close()
        await self._end_process()

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await process.wait()


def _is_listening(path: str) -> bool:
    """Whether a process has the socket open, even one that does not answer."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            pass  # its queue is full
        return True


def _same_folder(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
