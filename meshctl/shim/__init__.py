"""`meshctl mcp`: the MCP server that a client spawns. A pipe between its standard streams and the daemon's gateway.

No state but the handshake and what is unanswered. When the daemon is killed, restarted or upgraded, the shim
connects again, replays `initialize`, and sends again what is open; the client sees one answer to each request.
What is sent on a tool's behalf has an id made from this session and the request's id, so it is not sent twice.
Ends on end of file, SIGINT and SIGTERM; what was waiting ends with its connection.

Every session of a client holds one of these, so it imports little: tests/test_imports.py counts.
"""

import os
import time

from meshctl import inbox_socket
from meshctl.client import complain, quote
from meshctl.shim.reaching import CHUNK, WAITING, Ended, Way, deaf, give
from meshctl.shim.unanswered import Asked, Unanswered, as_json, parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from meshctl.client import socket

MAX_LINE = 1 << 20  # what the gateway takes
MAX_INPUT = 8 << 20  # of one line, to find the id that its refusal is for
PATIENCE = 20.0  # seconds without a daemon until open requests are answered with that
MAX_TRIES = 4  # times that one request is sent: it may be what ends the daemon


class Shim:
    """One session. `run` is its whole life."""

    def __init__(self) -> None:
        self._session = os.urandom(16).hex()
        self._name = ""
        self._ready = False  # the client knows the tools: it need not ask again before it can be woken
        self._unanswered = Unanswered()
        self._input = b""
        self._skipping = False
        self._gateway: socket | None = None
        self._way = Way(self._from_client, lambda: len(self._unanswered.open))

    def run(self) -> int:
        self._way.begin()
        try:
            while True:
                gateway = self._gateway = self._reach()
                self._replay()
                self._way.each(gateway, self._from_gateway)
                gateway.close()
                self._gateway = None
        except (Ended, BrokenPipeError):
            return 0
        finally:
            deaf()
            if self._gateway is not None:
                self._gateway.close()

    # --- to the gateway ---

    def _reach(self) -> "socket":
        """A connection to it. Nobody waits for ever: what is open for too long is answered with the trouble."""
        lost = time.monotonic()
        while True:
            found = self._way.attempt()
            if found is not None:
                return found
            for request in self._unanswered.overdue(lost, PATIENCE):
                self._give_up(request)

    def _replay(self) -> None:
        """Say who we are, then the handshake and every open request again, in their order."""
        self._send(_attach(self._session, self._name, self._ready))
        self._send(self._unanswered.replayed())
        for request in list(self._unanswered.open.values()):
            self._send_request(request)
        self._send(self._unanswered.initialized)

    def _send_request(self, request: Asked) -> None:
        request.tries += 1
        if request.tries > MAX_TRIES:
            self._give_up(request)
        else:
            self._send(request.line)

    def _send(self, line: bytes) -> None:
        """To the gateway, if there is one: that it has gone is seen by reading."""
        if self._gateway is not None and line:
            try:
                with WAITING:
                    self._gateway.sendall(line)
            except OSError:
                pass

    # --- from the client ---

    def _from_client(self) -> None:
        data = os.read(0, CHUNK)
        if not data:
            raise Ended
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
        message = parsed(line)
        if len(line) > MAX_LINE:
            what = f"a request is longer than {MAX_LINE} bytes"
            self._refuse(message.get("id"), what, "put it into a file and send the path")
            return
        request = self._unanswered.take(message, line)
        if request is None:
            self._send(line)
        elif self._gateway is not None:
            self._send_request(request)

    # --- from the gateway ---

    def _from_gateway(self, line: bytes) -> None:
        message = parsed(line)
        method, request_id = message.get("method", ""), message.get("id")
        if method.startswith("$mesh/"):
            self._obey(method, message["params"])
            return
        if method or request_id is None:
            give(line)
            return
        self._way.pause = 0.0
        if self._unanswered.is_replayed(request_id):
            return
        request = self._unanswered.drop(request_id)
        if request is None:  # it was cancelled, and the client wants no answer any more
            self._send(b'{"jsonrpc":"2.0","method":"$mesh/dropped","params":{"id":%s}}\n' % as_json(request_id))
            return
        give(line)
        self._ready = self._ready or request.method == "tools/list"
        if request.method == "tools/call":
            self._send(b'{"jsonrpc":"2.0","method":"$mesh/written","params":{"id":%s}}\n' % as_json(request_id))

    def _obey(self, method: str, params: "dict[str, Any]") -> None:
        if method == "$mesh/name":
            self._name = params["name"]
            self._way.trouble = ("the daemon went away each time that it was asked this", "meshctl logs")
            self._way.stopped = False
        elif method == "$mesh/stopping":
            self._way.stopped = True
        elif method == "$mesh/refused":
            self._way.trouble = (params["what"], params["then"])
        elif method == "$mesh/wake":
            why = inbox_socket.ring(params["text"])
            if why is not None:
                word = b'{"jsonrpc":"2.0","method":"$mesh/failed","params":{"rung":"socket","why":%s}}\n'
                self._send(word % quote(why).encode())

    # --- to the client, in the daemon's place ---

    def _give_up(self, request: Asked) -> None:
        self._unanswered.drop(request.id)
        self._refuse(request.id, *self._way.trouble)

    def _refuse(self, request_id: "Any", what: str, then: str) -> None:
        text = quote(f"agent-mesh: {what}. Next: {then}").encode("utf-8", "replace")
        give(b'{"jsonrpc":"2.0","id":%s,"error":{"code":-32000,"message":%s}}\n' % (as_json(request_id), text))


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


def run() -> int:
    """`meshctl mcp`."""
    try:
        return Shim().run()
    except Ended:
        return 0
    except OSError as error:
        complain(f"meshctl mcp: {error}\n")
        return 1
