"""`meshctl`, and `agent-mesh`: sends its arguments to the daemon and writes what comes back.

This is what every call pays for, so it imports nothing that the interpreter has not loaded already but two C
modules. Parsing, help, rendering and JSON live in the daemon (meshd/control/cli.py); what must work without a
daemon lives in `meshctl.local`, which is imported only then. tests/test_imports.py counts.
"""

import _json
import _socket
import os
import sys

from meshd import paths

TYPE_CHECKING = False  # `typing` is not worth its time here
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Carried out in this process: they must work where no daemon does, or end the one that runs.
LOCAL = ("up", "down", "doctor", "logs", "path", "version", "--version", "demo", "help")
ATTEMPTS = 3
MAX_STDIN = 1 << 20
LOST = "the daemon went away before it answered, and the outcome is unknown\n  next: meshctl status\n"


class _Scan:
    """The settings that the C scanner of `json` asks for."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


_scan = _json.make_scanner(_Scan)  # type: ignore[arg-type]
_quote = _json.encode_basestring


class Lost(Exception):
    """The connection ended in mid-call."""


class Refused(Exception):
    """The input is bad: (what, next). Nothing was sent."""


def main() -> int:
    """The whole program. Returns the exit code."""
    arguments = sys.argv[1:]
    keep_standard_streams()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141  # as a shell says it of a program that SIGPIPE ended
    except Refused as refused:
        complain(f"meshctl: {refused.args[0]}\n  next: {refused.args[1]}\n")
        return 2
    except Lost:
        complain(LOST)
        return 4


def _run(arguments: list[str]) -> int:
    name = next((a for a in arguments if not a.startswith("-") or a == "--version"), None)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if name is None or name in LOCAL or "--help" in options or "-h" in options:
        from meshctl import local

        return local.main(arguments)
    request = make_request(arguments)
    for attempt in range(ATTEMPTS):
        connection = connect()
        if connection is None:
            from meshctl import local

            connection = local.start_for(arguments, resumed=attempt > 0)
            if isinstance(connection, int):
                return connection
        try:
            return exchange(connection, request)
        except Lost:
            # Every message has the id that was made below, so repeating the call cannot send twice.
            continue
        finally:
            connection.close()
    raise Lost


def keep_standard_streams() -> None:
    """Fill the place of a closed standard stream: the next socket would take it, and swallow what is written there."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The wrong way round, so that reading or writing it fails as it does on a closed one.
            os.open(os.devnull, os.O_RDONLY if fd else os.O_WRONLY)


def connect() -> "_socket.socket | None":
    """A connection to the daemon, or None if none listens. Another failure is said and raised as `SystemExit`."""
    path = paths.socket_path()
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        complain(f"cannot connect to {path}: {error.strerror}\n  next: meshctl doctor\n")
        raise SystemExit(7 if isinstance(error, PermissionError) else 3) from None
    return connection


def make_request(arguments: list[str]) -> bytes:
    """The `cli` call: arguments, our variables, a fresh id for what is sent, and standard input if it is asked for."""
    environment = {k: v for k, v in os.environ.items() if k.startswith("AGENT_MESH_")}
    stdin = _quote(_read_stdin()) if "-" in arguments else "null"
    try:
        argv = ",".join(map(_quote, arguments)).encode()
    except UnicodeEncodeError:
        raise Refused("an argument is not valid UTF-8", "send text; encode binary data, as with base64") from None
    env = ",".join(f"{_quote(k)}:{_quote(v)}" for k, v in environment.items()).encode("utf-8", "replace")
    line = b'{"jsonrpc":"2.0","id":1,"method":"cli","params":{"argv":[%s],"env":{%s},"id":"%s","stdin":%s}}\n' % (
        argv,
        env,
        os.urandom(16).hex().encode(),
        stdin.encode(),
    )
    if len(line) > MAX_STDIN:
        raise Refused(f"the message is too large: over {MAX_STDIN} bytes on the socket", _SHORTER)
    return line


_SHORTER = "put it into a file and send the path"


def _read_stdin() -> str:
    data = b""
    try:
        while len(data) <= MAX_STDIN and (chunk := os.read(0, 1 << 16)):
            data += chunk
    except OSError as error:
        raise Refused(
            f"cannot read standard input: {error.strerror}", "give the text itself, or - with input"
        ) from None
    if len(data) > MAX_STDIN:
        raise Refused(f"standard input is over the hard limit of {MAX_STDIN} bytes", _SHORTER)
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise Refused("standard input is not valid UTF-8", "send text; encode binary data, as with base64") from None


def exchange(connection: "_socket.socket", request: bytes) -> int:
    """One call: write what the daemon says, confirm it, and return the exit code. Raises `Lost`."""
    tell(connection, request)
    for answer in _lines(connection):
        if "method" in answer:
            params = answer["params"]
            write(params["fd"], params["text"])
            tell(connection, b'{"jsonrpc":"2.0","method":"cli.ack","params":{"n":%d}}\n' % params["ack"])
            continue
        if "error" in answer:
            error = answer["error"]
            complain(f"{error['message']}\n  next: {error['data']['hint']}\n")
            code = error["data"].get("exit_code", 1)
            return code if isinstance(code, int) else 1
        result = answer["result"]
        write(2, result["err"])
        write(1, result["out"])
        return int(result["code"])
    raise Lost


def tell(connection: "_socket.socket", data: bytes) -> None:
    """Send. That the daemon has gone is noticed by reading: its last words, a refusal, may still be there."""
    try:
        connection.sendall(data)
    except OSError:
        pass


def _lines(connection: "_socket.socket") -> "Iterator[Any]":
    """Each line of the connection, parsed, until it ends."""
    rest = b""
    while data := _receive(connection):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield _scan(line.decode(), 0)[0]


def _receive(connection: "_socket.socket") -> bytes:
    try:
        return connection.recv(1 << 16)
    except OSError:
        raise Lost from None


def write(fd: int, text: str) -> None:
    """All of the text. Raises `BrokenPipeError`; a full disk is said and ends the program, with nothing confirmed."""
    data = text.encode("utf-8", "replace")
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            complain(f"cannot write the output: {error.strerror}; what was not written stays unread\n")
            raise SystemExit(1) from None


def complain(text: str) -> None:
    try:
        os.write(2, text.encode("utf-8", "replace"))
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
