"""Lines to the daemon: a connection each, which comes back when the daemon does."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from meshd.errors import DaemonDown, MeshError, NotAllowed, TimedOut
from meshd.mcp.daemon_client import Control, DaemonGone

# Seconds that calls wait for a daemon that has just gone: it may be restarting.
PATIENCE = 10.0
PAUSE = 0.05
OPENING = 10.0
STATUS = 2.0


class Daemon:
    """The daemon behind the socket at `path`: there or not, as each call finds it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._away: float | None = None
        self._status: Control | None = None
        self._asking = asyncio.Lock()

    async def connect(self) -> Control:
        """Raises `DaemonDown` once it has been away for `PATIENCE` seconds, whoever noticed first."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                control = await Control.open(self._path)
            except OSError:
                now = loop.time()
                self._away = self._away if self._away is not None else now
                if now - self._away > PATIENCE:
                    raise DaemonDown("meshd is not running", "Tell your user to type: meshctl up") from None
                await asyncio.sleep(PAUSE)  # nothing tells when a socket comes
            else:
                self._away = None
                return control

    async def status(self) -> dict[str, Any] | None:
        """What `meshctl status` shows; None if it does not answer."""
        try:
            async with asyncio.timeout(STATUS), self._asking:
                if self._status is None or self._status.gone:
                    await self._hang_up()
                    self._status = await Control.open(self._path)
                return dict(await self._status.call("status"))
        except (OSError, TimeoutError, MeshError):
            return None

    async def _hang_up(self) -> None:
        control, self._status = self._status, None
        if control is not None:
            await control.close()

    async def close(self) -> None:
        await self._hang_up()


class AgentLine:
    """One agent's connection to the daemon, made when it is needed, and made again when it has gone.

    `name` is what the agent goes by, `wanted` what it asked for. A `strict` line goes by that name or not at all.
    One that wants none, and is strict, is nobody: it asks what anybody may ask.
    """

    def __init__(
        self, daemon: Daemon, wanted: str | None = None, *, client: str | None = None, strict: bool = False
    ) -> None:
        self.key = self.new_key()
        self.name = ""
        self.wanted = wanted
        self._daemon = daemon
        self._client = client
        self._strict = strict
        self._control: Control | None = None
        self._opening = asyncio.Lock()

    @staticmethod
    def new_key() -> str:
        """AgentLines a session, so that ids made from it belong to nobody else."""
        return secrets.token_hex(16)

    async def control(self) -> Control:
        """The connection, with the name told to the daemon. Raises `MeshError`."""
        async with self._opening:
            if self._control is None or self._control.gone:
                await self._hang_up()
                self._control = await self._open()
            return self._control

    async def _open(self) -> Control:
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while True:
            control = await self._daemon.connect()
            try:
                async with asyncio.timeout(OPENING):
                    await self._introduce(control)
                return control
            except DaemonGone:
                await control.close()
                if loop.time() > until:
                    raise DaemonDown("meshd hangs up at once", "Tell your user to type: meshctl doctor") from None
                await asyncio.sleep(PAUSE)  # a daemon that is being killed still lets one in
            except TimeoutError:
                await control.close()
                raise TimedOut("meshd does not answer", "Tell your user to type: meshctl doctor") from None
            except BaseException:
                await control.close()
                raise

    async def _introduce(self, control: Control) -> None:
        if self._strict and self.wanted is None:
            await control.call("hello")
            return
        opened = await control.call(
            "session.open", session=self.key, had=self.name or None, name=self.wanted, client=self._client
        )
        if self._strict and opened["name"] != self.wanted:
            raise NotAllowed(f"{self.wanted} is another live session", "Use another name.")
        self.name = opened["name"]

    async def close(self) -> None:
        """The daemon frees what it held for this agent: its name's session, and mail that was not taken."""
        async with self._opening:
            await self._hang_up()

    async def _hang_up(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            await control.close()
