"""`meshctl hook`: what a client's hooks run. It tells a session something, wakes it, or is silent; it never fails.

A client takes exit code 2 for "stop, and hear this", and shows its user every other failure: so only the daemon's own
word for a wake becomes 2, and all else is 0.
"""

import os
import time

from meshctl.client import Lost, complain, connect, exchange, make_request, parse, quote
from meshd import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from meshctl.client import socket

WAKES = 86  # meshd.commands.hooks.WAKES
MAX_INPUT = 64 << 20  # what a tool has answered is in it, and only a few small fields are sent on
MAX_FIELD = 100_000
FIELDS = ("session_id", "hook_event_name", "agent_id", "stop_hook_active", "prompt", "source", "notification_type")
ATTEMPTS = 3
QUICK = 0.2  # seconds; a hook that has waited for longer has met a daemon that works


def run(arguments: list[str]) -> int:
    """The exit code: 2 to wake the session, else 0."""
    try:
        return 2 if _ask(arguments) == WAKES else 0
    except ValueError as error:
        complain(f"meshctl hook: {error}\n")
        return 0
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # whatever it is, it is no reason to stop a session
        complain(f"meshctl hook: {error!r}\n")
        return 0


def _ask(arguments: list[str]) -> int:
    waits = "--wait" in arguments
    request = make_request(arguments, _fields() if "-" in arguments else None)
    attempt = 0
    while attempt < ATTEMPTS:
        began = time.monotonic()
        connection = connect() or (_start() if waits else None)
        if connection is None:
            return 0  # a session at work has nobody to be told of
        try:
            return exchange(connection, request)
        except Lost:
            # A hook waits for days, and over many daemons.
            attempt = 1 if waits and time.monotonic() - began > QUICK else attempt + 1
        finally:
            connection.close()
    return 0


def _start() -> "socket | None":
    if not paths.may_start():
        return None
    from meshctl.starting import start

    return start()


def _fields() -> str:
    """Those fields of the hook's input that the daemon looks at, as JSON. What is none is left to it to say so."""
    data = b""
    while len(data) <= MAX_INPUT and (chunk := os.read(0, 1 << 20)):
        data += chunk
    try:
        said = parse(data.decode("utf-8", "replace").encode())
    except (ValueError, StopIteration, RecursionError):
        raise ValueError("standard input is not a hook's JSON") from None
    if not isinstance(said, dict):
        return "null"
    shown = []
    for name in FIELDS:
        value = said.get(name)
        if isinstance(value, str):
            shown.append(f"{quote(name)}:{quote(value[:MAX_FIELD])}")
        elif value is True:
            shown.append(f"{quote(name)}:true")
    return f"{{{','.join(shown)}}}"
