"""Hooks of clients that wait in the background to be rung: one for each of a client's conversations."""

from __future__ import annotations

from meshd.waking.waker import Bell


class WaitingHooks:
    """The hooks that wait now, by the client's own id of the conversation. A later one takes an earlier one's place."""

    def __init__(self) -> None:
        self._bells: dict[str, Bell] = {}
        self._pids: dict[str, int | None] = {}  # of their clients

    def __contains__(self, client_session: str | None) -> bool:
        return client_session in self._bells

    def bell(self, client_session: str | None) -> Bell | None:
        """What rings the hook of this conversation, if one waits."""
        return self._bells.get(client_session or "")

    def conversation_of(self, client_pid: int | None) -> str | None:
        """The conversation of which a hook waits that this process has started."""
        if client_pid is None:
            return None
        return next((key for key, pid in self._pids.items() if pid == client_pid), None)

    def add(self, client_session: str, client_pid: int | None, bell: Bell) -> None:
        before = self._bells.get(client_session)
        self._bells[client_session] = bell
        self._pids[client_session] = client_pid
        if before is not None:
            before("")

    def remove(self, client_session: str, bell: Bell) -> None:
        """This one waits no more; a later one stays."""
        if self._bells.get(client_session) is bell:
            del self._bells[client_session]
            del self._pids[client_session]

    def let_go(self, client_session: str | None) -> None:
        """Have the hook end with nothing to say."""
        if (bell := self.bell(client_session)) is not None:
            bell("")
