"""`meshctl mcp`: the MCP server that a client spawns. A pipe between its standard streams and the daemon's gateway.

No state but the handshake and what is unanswered. When the daemon is killed, restarted or upgraded, the shim
connects again, replays `initialize`, and sends again what is open; the client sees one answer to each request.
What is sent on a tool's behalf has an id made from this session and the request's id, so it is not sent twice.
Ends on end of file, SIGINT and SIGTERM; what was waiting ends with its connection.

Every session of a client holds one of these, so it imports little: tests/test_imports.py counts.
"""

import _signal  # type: ignore[import-not-found]  # `signal` itself loads `enum`
import os
import select
import sys
import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from meshctl import inbox_socket
from meshctl.client import complain, connect, parse, quote, write
from meshd import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDING = (_signal.SIGINT, _signal.SIGTERM)
CHUNK = 1 << 16
MAX_LINE = 1 << 20  # what the gateway takes
MAX_INPUT = 8 << 20  # of one line, to find the id that its refusal is for
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
PATIENCE = 20.0  # seconds without a daemon until open requests are answered with that
MAX_TRIES = 4  # times that one request is sent: it may be what ends the daemon


class _Ended(Exception):
    """The client has closed its end, or asked us to stop."""


class _Waiting:
    """A place where a signal may end us: only there, so that none comes between making something and keeping it."""

    def __enter__(self) -> None:
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, ENDING)

    def __exit__(self, *exc: object) -> None:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)


WAITING = _Waiting()


class _Open:
    """A request that was not answered yet."""

    def __init__(self, request_id: "Any", line: bytes, method: "Any") -> None:
        self.id = request_id
        self.line = line
        self.method = method
        self.tries = 0
        self.since = time.monotonic()


class Shim:
    """One session. `run` is its whole life."""

    def __init__(self) -> None:
        self._session = os.urandom(16).hex()
        self._name = ""
        self._ready = False  # the client knows the tools: it need not ask again before it can be woken
        self._initialize: _Open | None = None
        self._initialized = b""
        self._suppress: str | None = None  # the answer to a replayed `initialize` is not for the client
        self._open: dict[str, _Open] = {}
        self._input = b""
        self._skipping = False
        self._gateway: socket | None = None
        self._poll = select.poll()
        self._pause = 0.0  # before the next attempt; grows until an answer comes
        self._stopped = False  # on purpose: not started again before somebody asks for something
        self._trouble = ("meshd does not answer", "meshctl doctor")

    def run(self) -> int:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)
        _on_signals(_end)
        self._poll.register(0, select.POLLIN)
        self._poll.register(1, 0)  # only whether the client has closed it
        try:
            while True:
                self._gateway = self._reach()
                self._replay()
                self._pump()
                self._gateway.close()
                self._gateway = None
        except (_Ended, BrokenPipeError):
            return 0
        finally:
            _on_signals(_signal.SIG_IGN)  # the interpreter's end is not to be interrupted
            if self._gateway is not None:
                self._gateway.close()

    # --- the gateway ---

    def _reach(self) -> socket:
        """A connection to the gateway, however long that takes. The client is listened to meanwhile."""
        lost = time.monotonic()
        while True:
            self._listen(self._pause)
            self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, self._pause * 2))
            found = _connect_to(paths.gateway_socket_path()) or self._ask_daemon()
            if found is not None:
                return found
            self._refuse_old(lost)

    def _ask_daemon(self) -> "socket | None":
        """Have the daemon start its gateway; have it started itself if it does not run."""
        control = connect(_connect)
        if control is None and not (self._stopped and not self._open):
            control = self._start_daemon()
        if control is None:
            return None
        try:
            control.sendall(b'{"jsonrpc":"2.0","id":1,"method":"mcp.open"}\n')
            answer = _parsed(self._collect(control.fileno(), b"\n"))
        except OSError:
            return None
        finally:
            control.close()
        if "result" in answer:
            return _connect_to(answer["result"]["socket"])
        if "error" in answer:
            data = answer["error"]["data"]
            self._trouble = (answer["error"]["message"], data["hint"])
            self._stopped = self._stopped or data["kind"] == "stopping"
        return None

    def _start_daemon(self) -> "socket | None":
        """By a process of its own: what starting one needs would stay in our memory for the whole session."""
        if not paths.may_start():
            self._trouble = ("meshd is not running, and AGENT_MESH_NO_AUTOSTART forbids to start it", "meshctl up")
            return None
        ours, theirs = os.pipe()
        actions: list[Any] = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
        actions.append((os.POSIX_SPAWN_DUP2, theirs, 2))
        command = [sys.executable, "-P", "-m", "meshctl", "up"]
        pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setsigmask=())
        os.close(theirs)
        try:
            said = self._collect(ours, b"")
        except BaseException:
            os.kill(pid, _signal.SIGTERM)  # the client has gone in the meantime
            raise
        finally:
            os.close(ours)
            os.waitpid(pid, 0)
        if said:
            what, _, then = said.decode("utf-8", "replace").partition("\n")
            self._trouble = (what, then.strip().removeprefix("next: ") or "meshctl doctor")
        return connect(_connect)

    def _collect(self, fd: int, end: bytes) -> bytes:
        """What comes from there until `end`, or until it is over. The client is listened to meanwhile."""
        data = b""
        self._poll.register(fd, select.POLLIN)
        try:
            while not (end and data.endswith(end)):
                for ready in self._readable():
                    if ready == 0:
                        self._from_client()
                    elif piece := os.read(fd, CHUNK):
                        data += piece
                    else:
                        return data
        finally:
            self._poll.unregister(fd)
        return data

    def _replay(self) -> None:
        """Say who we are, then the handshake and every open request again, in their order."""
        self._send(_attach(self._session, self._name, self._ready))
        first = self._initialize
        if first is not None and self._open.get(_key(first.id)) is not first:
            self._suppress = _key(first.id)
            self._send(first.line)
        for request in list(self._open.values()):
            self._send_request(request)
        if self._initialized:
            self._send(self._initialized)

    def _send_request(self, request: _Open) -> None:
        request.tries += 1
        if request.tries > MAX_TRIES:
            self._refuse(request.id, *self._trouble)
            del self._open[_key(request.id)]
        else:
            self._send(request.line)

    def _send(self, line: bytes) -> None:
        """To the gateway, if there is one: that it has gone is seen by reading."""
        if self._gateway is not None:
            try:
                with WAITING:
                    self._gateway.sendall(line)
            except OSError:
                pass

    # --- both ways ---

    def _pump(self) -> None:
        """Copy both ways until the gateway has gone."""
        gateway, answers = self._gateway, b""
        assert gateway is not None
        self._poll.register(gateway, select.POLLIN)
        try:
            while True:
                for fd in self._readable():
                    if fd == 0:
                        self._from_client()
                        continue
                    try:
                        data = gateway.recv(CHUNK)
                    except OSError:
                        data = b""
                    if not data:
                        return
                    *lines, answers = (answers + data).split(b"\n")
                    for line in lines:
                        self._from_gateway(line + b"\n")
        finally:
            self._poll.unregister(gateway)

    def _listen(self, seconds: float) -> None:
        """Listen to the client alone for so long, or until it asks for something."""
        until, waiting = time.monotonic() + seconds, len(self._open)
        while (left := until - time.monotonic()) > 0 and len(self._open) <= waiting:
            if self._readable(left):
                self._from_client()

    def _readable(self, seconds: "float | None" = None) -> "list[int]":
        """What there is something to read from, after so long at most. Raises `_Ended` if nobody reads from us."""
        with WAITING:
            found = [fd for fd, _ in self._poll.poll(None if seconds is None else seconds * 1000)]
        if 1 in found:
            raise _Ended
        return found

    # --- the client ---

    def _from_client(self) -> None:
        data = os.read(0, CHUNK)
        if not data:
            raise _Ended
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
                self._refuse(None, f"a line is longer than {MAX_INPUT} bytes", "send less")
            elif line.strip():
                self._take(line + b"\n")
        if len(self._input) > MAX_INPUT:
            self._input, self._skipping = b"", True
        elif self._skipping:
            self._input = b""

    def _take(self, line: bytes) -> None:
        """One line of the client: remembered if it wants an answer, and passed on."""
        message = _parsed(line)
        method, request_id = message.get("method"), message.get("id")
        if len(line) > MAX_LINE:
            self._refuse(
                request_id, f"a request is longer than {MAX_LINE} bytes", "put it into a file and send the path"
            )
            return
        if method == "notifications/initialized":
            self._initialized = line
        elif method == "notifications/cancelled":
            params = message.get("params")
            self._open.pop(_key(params.get("requestId") if isinstance(params, dict) else None), None)
        if not _is_id(request_id) or "result" in message or "error" in message:
            self._send(line)  # nobody waits for an answer to it
            return
        request = self._open[_key(request_id)] = _Open(request_id, line, method)
        if method == "initialize":
            self._initialize = request
        if self._gateway is not None:
            self._send_request(request)

    def _from_gateway(self, line: bytes) -> None:
        message = _parsed(line)
        method = message.get("method", "")
        if method.startswith("$mesh/"):
            self._obey(method, message["params"])
            return
        if method or message.get("id") is None:
            _write(line)
            return
        self._pause = 0.0
        key = _key(message["id"])
        if key == self._suppress:
            self._suppress = None
            return
        request = self._open.pop(key, None)
        if request is None:  # it was cancelled, and the client wants no answer any more
            self._send(b'{"jsonrpc":"2.0","method":"$mesh/dropped","params":{"id":%s}}\n' % _json(message["id"]))
            return
        _write(line)
        self._ready = self._ready or request.method == "tools/list"
        if request.method == "tools/call":
            self._send(b'{"jsonrpc":"2.0","method":"$mesh/written","params":{"id":%s}}\n' % _json(message["id"]))

    def _obey(self, method: str, params: "dict[str, Any]") -> None:
        if method == "$mesh/name":
            self._name = params["name"]
            self._trouble = ("the daemon went away each time that it was asked this", "meshctl logs")
            self._stopped = False
        elif method == "$mesh/stopping":
            self._stopped = True
        elif method == "$mesh/refused":
            self._trouble = (params["what"], params["then"])
        elif method == "$mesh/wake":
            why = inbox_socket.ring(params["text"])
            if why is not None:
                word = b'{"jsonrpc":"2.0","method":"$mesh/failed","params":{"rung":"socket","why":%s}}\n'
                self._send(word % quote(why).encode())

    def _refuse_old(self, lost: float) -> None:
        """Nobody waits for ever: what has been open without a daemon for too long is answered with the trouble."""
        for key, request in list(self._open.items()):
            if time.monotonic() - max(lost, request.since) > PATIENCE:
                del self._open[key]
                self._refuse(request.id, *self._trouble)

    def _refuse(self, request_id: "Any", what: str, then: str) -> None:
        text = quote(f"agent-mesh: {what}. Next: {then}").encode("utf-8", "replace")
        _write(b'{"jsonrpc":"2.0","id":%s,"error":{"code":-32000,"message":%s}}\n' % (_json(request_id), text))


def _attach(session: str, had: str, ready: bool) -> bytes:
    """The first line to the gateway: who we are, as far as our environment tells."""
    environment = os.environ.get
    facts = {
        "session": session,
        "had": had,
        "name": environment("AGENT_MESH_NAME"),
        "project": environment("CLAUDE_PROJECT_DIR") or _folder(),
        "client_session": environment("CLAUDE_CODE_SESSION_ID"),
        "client": inbox_socket.client(),
    }
    shown = ",".join(f"{quote(key)}:{quote(value)}" for key, value in facts.items() if value)
    rungs = ",".join(map(quote, inbox_socket.rungs()))
    ours = f'"client_pid":{os.getppid()},"rungs":[{rungs}],"ready":{"true" if ready else "false"}'
    return f"{{{shown},{ours}}}\n".encode("utf-8", "replace")


def _folder() -> "str | None":
    try:
        return os.getcwd()
    except OSError:
        return None  # it was deleted


def _connect_to(path: str) -> "socket | None":
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        _connect(connection, path)
    except OSError:
        connection.close()
        return None
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(connection: socket, path: str) -> None:
    """Waits while its queue is full."""
    with WAITING:
        connection.connect(path)


def _write(line: bytes) -> None:
    """To the client, whenever it reads."""
    with WAITING:
        write(1, line)


def _parsed(line: bytes) -> "dict[str, Any]":
    """The message in a line; an empty one if it is none: the gateway says what is wrong with it."""
    try:
        message = parse(line)
    except (ValueError, StopIteration, RecursionError, SystemError):  # the last: on 3.11, with no `json` loaded
        return {}
    return message if isinstance(message, dict) else {}


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _key(request_id: "Any") -> str:
    return repr(request_id) if _is_id(request_id) else ""  # 1 and "1" are two


def _json(request_id: "Any") -> bytes:
    if not _is_id(request_id):
        return b"null"
    return quote(request_id).encode("utf-8", "replace") if isinstance(request_id, str) else b"%d" % request_id


def _on_signals(handler: "Any") -> None:
    for number in ENDING:
        _signal.signal(number, handler)


def _end(number: int, frame: object) -> None:
    _on_signals(_nothing)  # the next one would end the end
    raise _Ended


def _nothing(number: int, frame: object) -> None:
    """For a client in a hurry, which signals more than once."""


def run() -> int:
    """`meshctl mcp`."""
    try:
        return Shim().run()
    except _Ended:
        return 0
    except OSError as error:
        complain(f"meshctl mcp: {error}\n")
        return 1
