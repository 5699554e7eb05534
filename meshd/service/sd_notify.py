"""What a service says to systemd: `READY=1`, `STATUS=…`, `WATCHDOG=1`, `STOPPING=1` (sd_notify(3)).

Each state is a datagram that is made here, so `Type=notify` works in every installation. libsystemd's own function
waits when the manager's queue is full, and the event loop with it: it is not used where it is installed either.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping

from meshd.core.text import one_line

Say = Callable[[str], None]
# In a status, between what is wrong and what to do about it.
NEXT = "; next: "


class Notifier:
    """Tells the manager; says nothing to nobody if no manager asked to be told."""

    def __init__(self, say: Say | None) -> None:
        self._say = say
        self._status = ""

    @property
    def wanted(self) -> bool:
        return self._say is not None

    def tell(self, state: str) -> None:
        """One or more `NAME=value` lines. A manager that has gone is no trouble of ours."""
        if self._say is not None:
            with contextlib.suppress(OSError):
                self._say(state)

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows. Said only when it has changed."""
        text = one_line(text)
        if text != self._status:
            self._status = text
            self.tell(f"STATUS={text}")


def notifier(environ: Mapping[str, str] = os.environ) -> Notifier:
    """For the manager that `$NOTIFY_SOCKET` names, if it names one."""
    address = environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):  # a path, or a name without a file; nothing else is known here
        return Notifier(None)
    target = b"\0" + os.fsencode(address[1:]) if address[0] == "@" else os.fsencode(address)

    def say(state: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            # A manager that is stopped must not stop us: what does not fit into its queue is not said.
            client.setblocking(False)
            client.sendto(state.encode("utf-8", "replace"), target)

    return Notifier(say)
