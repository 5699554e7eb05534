"""What a Claude Code session offers for being woken: its inbox socket, and a channel if it registered one.

The frame is undocumented: it is looked for, never relied on, and known here only. It is written by a child of the
session: from anybody else the session holds it back behind a dialog, even with the token.
"""

import os

from meshctl.client import AF_UNIX, SOCK_STREAM, quote, socket

TIMEOUT = 2.0
_count = iter(range(1, 1 << 62))  # itertools would cost every session more memory than all the rest of this module
CHANNEL_OPTIONS = ("--channels", "--dangerously-load-development-channels")


def rungs() -> list[str]:
    """The rungs of the wake ladder that this session can be rung by."""
    found = ["socket"] if os.environ.get("CLAUDE_CODE_MESSAGING_SOCKET") else []
    return [*found, "channel"] if _channel_registered() else found


def ring(text: str) -> str | None:
    """Put a line before the session: an idle one starts a turn. Why not, if it failed; the socket answers nothing."""
    path, token = os.environ.get("CLAUDE_CODE_MESSAGING_SOCKET"), os.environ.get("CLAUDE_CODE_MESSAGING_TOKEN", "")
    if not path:
        return "this session has no inbox socket"
    # The session adds that a peer wrote, and names its own tool for answering peers. And it drops a message that is
    # the same as the last one: the count makes each wake another.
    text += f" (wake {next(_count)}; answer with mesh_reply, not SendMessage)"
    lines = (
        f'{{"type":"auth","token":{quote(token)}}}\n'
        f'{{"type":"user","message":{{"role":"user","content":{quote(text)}}}}}\n'
    )
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT)
        connection.connect(path)
        connection.sendall(lines.encode("utf-8", "replace"))
    except OSError as error:
        return f"the session's inbox socket: {error.strerror or error}"
    finally:
        connection.close()
    return None


def client() -> str | None:
    """The program that spawned us, by its name."""
    try:
        with open(f"/proc/{os.getppid()}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() or None
    except OSError:
        return "claude" if os.environ.get("CLAUDE_CODE_SESSION_ID") else None


def _channel_registered() -> bool:
    """Whether the session was started with this server as a channel: nothing else tells."""
    try:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            arguments = file.read().decode("utf-8", "replace").split("\0")
    except OSError:
        return False
    return any(a in CHANNEL_OPTIONS for a in arguments) and any("agent-mesh" in a for a in arguments)
