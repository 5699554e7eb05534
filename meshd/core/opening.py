"""What an MCP session tells of itself when it comes: the shim to the gateway, and the gateway to the daemon."""

from __future__ import annotations

import msgspec


class Opening(msgspec.Struct, kw_only=True):
    """What a session tells of itself.

    `session` names it across reconnections. `had` is the name it had before its connection broke, `name` the one
    that its user chose, `project` its folder, `client_session` the client's own id for it, `client` and `client_pid`
    the client's program, `rungs` what it can be rung by, and `ready` that it knows the tools that a wake names.
    """

    session: str
    had: str | None = None
    name: str | None = None
    project: str | None = None
    client_session: str | None = None
    client: str | None = None
    client_pid: int | None = None
    rungs: list[str] = []
    ready: bool = False
