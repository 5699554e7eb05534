"""The way to the daemon: connect, ask, write what it says, confirm it.

Every `meshctl` pays for this module and for `meshctl.__main__`, so they import nothing that the interpreter has
not loaded already but two C modules, or what is public in their place where those are not as they were known.
tests/test_imports.py counts.
"""

import os

from meshd import paths

TYPE_CHECKING = False  # `typing` is not worth its time here
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    _Codec = tuple[Callable[[str, int], tuple[Any, int]], Callable[[str], str], Callable[[str], str]]

try:
    from _socket import AF_UNIX as AF_UNIX
    from _socket import SOCK_STREAM as SOCK_STREAM
    from _socket import socket as socket
except ImportError:  # the public module is made of it, and takes longer to load
    from socket import AF_UNIX, SOCK_STREAM, socket  # type: ignore[assignment]

MAX_STDIN = 1 << 20


class _Scan:
    """The settings that the C scanner of `json` asks for, of each version that there is."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _from_c() -> "_Codec":
    """What `json` is made of. Raises anything if it is not as we know it, for it is private and nobody's promise."""
    from _json import encode_basestring, encode_basestring_ascii, make_scanner

    scan = make_scanner(_Scan)  # type: ignore[arg-type]
    if scan(_TRIED[0], 0) != (_TRIED[1], len(_TRIED[0])) or encode_basestring("é\n") != '"é\\n"':
        raise ValueError
    if encode_basestring_ascii("é\n") != '"\\u00e9\\n"':
        raise ValueError
    return scan, encode_basestring, encode_basestring_ascii


_TRIED = '[-0.5,1,null,true,{"a":"\\u00e9"}]', [-0.5, 1, None, True, {"a": "é"}]


def _from_json() -> "_Codec":
    """The same by what `json` promises. It takes as long to load as all else here."""
    import json

    return json.JSONDecoder(strict=False).raw_decode, lambda text: json.dumps(text, ensure_ascii=False), json.dumps


try:
    _scan, quote, quote_ascii = _from_c()
except Exception:  # whatever another version has changed, the public way is still there
    _scan, quote, quote_ascii = _from_json()


def parse(line: bytes) -> "Any":
    """The JSON in a line. Raises `ValueError`, `StopIteration` or `RecursionError` if there is none."""
    return _scan(line.decode().strip(), 0)[0]


class Lost(Exception):
    """The connection ended in mid-call."""


class Silent(Lost):
    """The daemon is there, and did not answer in time."""


class Refused(Exception):
    """The input is bad: (what, next). Nothing was sent."""


def connect(reach: "Callable[[socket, str], None]" = socket.connect) -> "socket | None":
    """A connection to the daemon, or None if none listens. Another failure is said and raised as `SystemExit`.

    `reach` connects the socket to the path: for a caller that has its own way to wait.
    """
    path = paths.socket_path()
    try:
        return connected(path, reach)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    except OSError as error:
        complain(f"cannot connect to {path}: {error.strerror}\n  next: meshctl doctor\n")
        raise SystemExit(7 if isinstance(error, PermissionError) else 3) from None


def connected(path: str, reach: "Callable[[socket, str], None]") -> "socket":
    """A connection to who listens there, which `reach` connects. Raises `OSError`, and what `reach` raises."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        reach(connection, path)
    except BaseException:  # also a signal, which ends this process in the middle of it
        connection.close()
        raise
    return connection


def new_id() -> str:
    return os.urandom(16).hex()


def make_request(arguments: list[str], given: "str | None" = None, message_id: "str | None" = None) -> bytes:
    """The `cli` call: arguments, our variables, the id for what is sent, and standard input if it is asked for.

    `given` stands for standard input that was read already, `message_id` for a fresh id.
    """
    environment = {k: v for k, v in os.environ.items() if k.startswith(("AGENT_MESH_", "CLAUDE_PID"))}
    stdin = quote(_read_stdin() if given is None else given) if "-" in arguments else "null"
    try:
        argv = ",".join(map(quote, arguments)).encode()
    except UnicodeEncodeError:
        raise Refused("an argument is not valid UTF-8", "send text; encode binary data, as with base64") from None
    env = ",".join(f"{quote(k)}:{quote(v)}" for k, v in environment.items()).encode("utf-8", "replace")
    line = b'{"jsonrpc":"2.0","id":1,"method":"cli","params":{"argv":[%s],"env":{%s},"id":"%s","stdin":%s}}\n' % (
        argv,
        env,
        (message_id or new_id()).encode(),
        stdin.encode(),
    )
    if len(line) > MAX_STDIN:
        raise Refused(
            f"the message is too large: quoted, and with its options, it is over the {MAX_STDIN} bytes of a call",
            _SHORTER,
        )
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


def exchange(connection: socket, request: bytes) -> int:
    """One call to its end, as `converse` and `finish` do it. The exit code. Raises `Lost`."""
    return finish(converse(connection, request))


def converse(connection: socket, request: bytes, *, patient: bool = False) -> "dict[str, Any]":
    """One call: write what the daemon says, confirm it, and return its last word, which `finish` writes.

    Raises `Lost`. `Silent` is raised at the connection's timeout; `patient`, only if the daemon does not say within
    as much again that it lives.
    """
    tell(connection, request)
    for answer in answers(connection, patient=patient):
        if "method" not in answer:
            return dict(answer)
        params = answer["params"]
        write(params["fd"], params["text"])
        tell(connection, b'{"jsonrpc":"2.0","method":"cli.ack","params":{"n":%d}}\n' % params["ack"])
    raise Lost


def finish(answer: "dict[str, Any]") -> int:
    """Write a call's result, or its error. The exit code."""
    if "error" in answer:
        error = answer["error"]
        complain(f"{error['message']}\n  next: {error['data']['hint']}\n")
        code = error["data"].get("exit_code", 1)
        return code if isinstance(code, int) else 1
    result = answer["result"]
    write(2, result["err"])
    write(1, result["out"])
    return int(result["code"])


def tell(connection: socket, data: bytes) -> None:
    """Send. That the daemon has gone is noticed by reading: its last words, a refusal, may still be there."""
    try:
        connection.sendall(data)
    except TimeoutError:
        raise Silent from None
    except OSError:
        pass


def answers(connection: socket, *, patient: bool = False) -> "Iterator[Any]":
    """Each line of the connection, parsed, until it ends."""
    rest = b""
    while data := _receive(connection, patient=patient):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            answer = parse(line)
            if answer.get("id") == _ALIVE_ID:
                connection.settimeout(None)
            else:
                yield answer


_ALIVE_ID = 0


def _receive(connection: socket, *, patient: bool) -> bytes:
    try:
        return connection.recv(1 << 16)
    except TimeoutError:
        if not patient:
            raise Silent from None
        tell(connection, b'{"jsonrpc":"2.0","id":%d,"method":"hello"}\n' % _ALIVE_ID)
        return _receive(connection, patient=False)
    except OSError:
        raise Lost from None


def write(fd: int, text: "str | bytes") -> None:
    """All of the text. Raises `BrokenPipeError`; a full disk is said and ends the program, with nothing confirmed."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
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
