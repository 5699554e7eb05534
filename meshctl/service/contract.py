"""What a service manager can do for the daemon, and what it says when it cannot."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

from meshctl.service.marked import Marked
from meshd.errors import DaemonDown, MeshError
from meshd.service.sd_notify import NEXT

LOG = "meshctl logs -n 20"
NEXT_WITHOUT = (
    "nothing is needed: the daemon starts with the first command; `meshctl up` in ~/.profile starts it at login"
)


class NoManager(MeshError):
    """Nothing here runs services for this user, or it cannot be reached, or it is another user's."""

    kind: ClassVar[str] = "no_service_manager"


class ServiceDown(DaemonDown):
    """The manager was asked to start the daemon, and it does not run."""


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
    """One kind of service manager. Its methods raise `NoManager` or `ServiceDown`; `files` also `NotChanged`."""

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
