"""The service manager of this platform: what each of them can do, and which one is here."""

from __future__ import annotations

import os
import sys
from typing import Any, ClassVar, NamedTuple, Protocol

from meshctl.service.marked import Marked
from meshd import paths
from meshd.disk.files import holder
from meshd.errors import MeshError
from meshd.service.notify import NEXT


class NoManager(MeshError):
    """Nothing here runs services for this user, or it cannot be reached, or it is another user's."""

    kind: ClassVar[str] = "no_service_manager"


class NotRunning(MeshError):
    """The manager was asked to start the daemon, and it does not run."""

    kind: ClassVar[str] = "daemon_down"
    exit_code: ClassVar[int] = 3


class State(NamedTuple):
    """What the manager knows. `active`: active, inactive, failed, activating …; `said`: the daemon's own line.

    `result`: how it ended, in the manager's words; empty if that was no failure, or is not known.
    """

    active: str
    pid: int | None
    enabled: bool
    restarts: int | None
    said: str
    result: str
    stale: bool = False  # the manager has not read the files that are there now

    @property
    def running(self) -> bool:
        return self.pid is not None and self.active == "active"


class Manager(Protocol):
    """One kind of service manager. Its methods raise `NoManager` or `NotRunning`; `files` also `NotChanged`."""

    name: str
    keeps_socket: bool  # over a restart, so that clients wait in it

    def check(self) -> None:
        """Raises `NoManager` if it is not there, or would serve other files than this user's commands use."""

    def files(self) -> list[Marked]:
        """What an installation writes."""

    def installed(self) -> str | None:
        """The path of the service's file that is in force, whoever wrote it; None if there is none."""

    def is_enabled(self) -> bool:
        """Whether it starts at login. Looks at files only."""

    def serves(self) -> bool:
        """Whether it is there and enabled, as far as files tell."""

    def enable(self) -> list[str]:
        """Have the manager read the files, and start the service at login. The commands that were run."""

    def disable(self) -> list[str]:
        """The opposite. The commands that were run."""

    def forget(self) -> None:
        """Have the manager forget files that were removed, and remove what `enable` left."""

    def start(self) -> None:
        """Returns when the daemon listens."""

    def stop(self) -> None:
        """Returns when the daemon has ended, by force if need be, and nothing starts it until it is asked for."""

    def restart(self) -> None:
        """Returns when the next daemon listens. No client is refused meanwhile where the manager keeps the socket."""

    def state(self) -> State: ...

    def last(self) -> None:
        """Have it go on after logout. Raises `NoManager` with the reason if that cannot be."""

    def lasting(self) -> dict[str, Any]:
        """Whether it goes on after logout: `{lasts, how, command}`; `lasts` is None where that cannot be known."""


def cure(said: str) -> tuple[str, str]:
    """What is wrong and what to do about it, as the daemon says both in one line."""
    why, _, hint = said.partition(NEXT)
    return why, hint


def find(platform: str = sys.platform) -> Manager:
    """The manager of this platform. Raises `NoManager` if we know none for it."""
    if platform == "darwin":
        from meshctl.service.launchd import Launchd

        return Launchd()
    if platform == "linux":
        from meshctl.service.systemd import Systemd

        return Systemd()
    raise NoManager(f"there is no service manager that agent-mesh knows on {platform}", NEXT_WITHOUT)


def waiting() -> Manager | None:
    """The manager that starts the daemon as soon as somebody connects, while none runs. Who only looks must not."""
    if holder(paths.socket_path() + ".lock") is not None:
        return None
    try:
        service = enabled()
        return service if service is not None and service.state().pid is None else None
    except NoManager:
        return None


LOG = "meshctl logs -n 20"
NEXT_WITHOUT = (
    "nothing is needed: the daemon starts with the first command; `meshctl up` in ~/.profile starts it at login"
)


def enabled() -> Manager | None:
    """The manager, if the service is installed, starts at login, and serves the socket that this process uses.

    Looks at files only: every command that finds no daemon comes here.
    """
    if os.environ.get("AGENT_MESH_SOCKET"):
        return None
    try:
        manager = find()
    except NoManager:
        return None
    return manager if manager.serves() else None
