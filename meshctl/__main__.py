"""`meshctl`, and `agent-mesh`: sends its arguments to the daemon and writes what comes back.

Parsing, help, rendering and JSON live in the daemon (meshd/control/cli.py); what must work without a daemon lives
in `meshctl.commands.dispatch`, which is imported only then.
"""

import os
import sys
import time

from meshctl.client import Lost, Refused, Silent, complain, connect, converse, exchange, finish, make_request, new_id
from meshd import __version__, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from meshctl.client import socket

# Carried out in this process: they must work where no daemon does, or end the one that runs.
LOCAL = (
    "up", "down", "doctor", "logs", "path", "version", "--version", "demo", "help", "mcp", "serve",
    "install", "uninstall", "completion", "service",
)  # fmt: skip
ATTEMPTS = 3  # in a row: the call may be what ends the daemon
LASTED = 5.0  # seconds after which a connection was none of those
COMPLETE_TIMEOUT = 1.0
# Seconds in which it is known how the daemon is, or that it hangs.
PROMPT = {"status": 5.0, "metrics": 5.0}
# Every other command may have to wait: after so long the daemon is asked whether it lives, and given as much again.
PATIENCE = 15.0
AWAY = "the daemon went away before it answered"
WITH_ID = ("send", "broadcast", "reply", "ack", "request")


def main() -> int:
    """The whole program. Returns the exit code."""
    arguments = sys.argv[1:]
    keep_standard_streams()
    try:
        if arguments in (["mcp"], ["serve"]):
            from meshctl import shim

            return shim.run()
        if "hook" in arguments[:1] and "--help" not in arguments:
            from meshctl import hook

            return hook.run(arguments)
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141  # as a shell says it of a program that SIGPIPE ended
    except Refused as refused:
        from meshctl import printing

        return printing.refuse(arguments, *refused.args)
    except Lost:
        return _failed(f"{AWAY}, and the outcome is unknown", "meshctl status")


def _run(arguments: list[str]) -> int:
    name = next((a for a in arguments if not a.startswith("-") or a == "--version"), None)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if name is None or name in LOCAL or "--help" in options or "-h" in options:
        from meshctl.commands import direct

        code = direct.answer(arguments)
        if code is None:
            from meshctl.commands import dispatch

            code = dispatch.main(arguments)
        return code
    message_id = new_id()
    request = make_request(arguments, message_id=message_id)
    if name == "complete":
        return _complete(request)
    if name == "events" and ("-f" in options or "--follow" in options):
        from meshctl.commands import events

        return events.follow(arguments, request)
    looks = name in PROMPT or (name == "who" and "--json" in options)
    resumed, left = False, ATTEMPTS
    while left:
        connection: socket | int | None = None if looks and _would_start() else connect()
        if connection is None:
            from meshctl.commands import absent

            connection = absent.start_for(arguments, resumed=resumed)
        if isinstance(connection, int):
            return connection
        began = time.monotonic()
        connection.settimeout(PROMPT.get(name, PATIENCE))
        try:
            answer = converse(connection, request, patient=name not in PROMPT)
            code = finish(answer)
            if "result" in answer and answer["result"].get("version") != __version__:
                from meshctl import skew

                skew.warn(connection, answer["result"])
            return code
        except Silent:
            what = f"meshd does not answer on {paths.socket_path()}"
            return _failed(what if looks else f"{what}, and {_unknown(name, options, message_id)}", "meshctl doctor")
        except Lost:
            # Every message has the id that was made above, so repeating the call cannot send twice.
            resumed = True
            left = ATTEMPTS if time.monotonic() - began > LASTED else left - 1
        finally:
            connection.close()
    return _failed(f"{AWAY}, and {_unknown(name, options, message_id)}", "meshctl status")


def _unknown(name: str, options: "list[str]", message_id: str) -> str:
    if name not in WITH_ID:
        return "the outcome is unknown"
    given = any(option.partition("=")[0] == "--id" for option in options)
    same = "the same again" if given else f"the same again with --id {message_id}"
    return f"it may or may not have been sent: {same} cannot duplicate it"


def _failed(what: str, then: str) -> int:
    complain(f"{what}\n  next: {then}\n")
    return 4


def _would_start() -> bool:
    """Whether there is no daemon, and connecting would have a manager start one."""
    try:
        with open(paths.socket_path() + ".lock", "rb") as lock:
            os.kill(int(lock.read(32)), 0)
        return False
    except (OSError, ValueError):  # what knows for certain is loaded only now
        from meshctl.service import here

        return here.waiting() is not None


def _complete(request: bytes) -> int:
    """What a shell asks while its user waits with a finger on Tab: no daemon is started, and none waited for long."""
    connection = None if _would_start() else connect()
    if connection is None:
        return 0
    connection.settimeout(COMPLETE_TIMEOUT)
    try:
        return exchange(connection, request)
    except Lost:
        return 0
    finally:
        connection.close()


def keep_standard_streams() -> None:
    """Fill the place of a closed standard stream: the next socket would take it, and swallow what is written there."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The wrong way round, so that reading or writing it fails as it does on a closed one.
            os.open(os.devnull, os.O_RDONLY if fd else os.O_WRONLY)


if __name__ == "__main__":
    sys.exit(main())
