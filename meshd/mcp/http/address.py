"""Where to listen, and who may come: decided from the arguments and the environment before anything else starts.

Imports no SDK, so that a refusal is quick.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from typing import NamedTuple

from meshd.errors import MeshError, UsageError

TOKEN = "AGENT_MESH_HTTP_TOKEN"  # noqa: S105 - the variable's name
TOKEN_FILE = "AGENT_MESH_HTTP_TOKEN_FILE"  # noqa: S105
HOSTS = "AGENT_MESH_HTTP_HOSTS"
BACKLOG = 512
_LOOPBACK = ["127.0.0.1", "localhost", "[::1]"]


class CannotListen(MeshError):
    """The address is another program's, or not ours to take."""

    kind = "address"


class Address(NamedTuple):
    """A listening socket, the names by which it may be asked for, and the token that a request must show."""

    socket: socket.socket
    host: str
    names: list[str]
    token: bytes | None

    @property
    def url(self) -> str:
        return f"http://{_bracketed(self.host)}:{self.socket.getsockname()[1]}"


def listen(host: str, port: int, environ: Mapping[str, str] | None = None) -> Address:
    """Listen on one address of this machine; port 0 takes a free one.

    Raises `UsageError` for what is no address, and for any address but loopback without a token: whoever reaches
    the port speaks for every agent here. Raises `CannotListen` if the port is taken.
    """
    environ = os.environ if environ is None else environ
    if not 0 <= port <= 65535:
        raise UsageError(f"there is no port {port}", "give --port a number from 1 to 65535, or 0 for any free one")
    family, where = _resolve(host, port)
    token = _token(environ)
    if token is None and not ipaddress.ip_address(where[0].partition("%")[0]).is_loopback:
        raise UsageError(
            f"other machines can reach {host}: it is served only to those who show a token",
            f"write a long random token into a file and set {TOKEN_FILE} to its path, or stay on 127.0.0.1",
        )
    asked = [name.strip() for name in environ.get(HOSTS, "").split(",") if name.strip()]
    names = list(dict.fromkeys([*_LOOPBACK, _bracketed(host), *asked]))
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just ended leaves its port busy
        made.bind(where)
        made.listen(BACKLOG)  # two that bind at the same moment: the second one fails here
    except OSError as error:
        made.close()
        raise _refused(host, port, error) from None
    return Address(made, host, names, token)


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)
        if not host:
            raise ValueError
    except (OSError, ValueError):
        raise UsageError(
            f"no address belongs to {host!a}", "give --host an address of this machine, as 127.0.0.1"
        ) from None
    family, _, _, _, where = found[0]
    return family, where  # type: ignore[return-value]


def _refused(host: str, port: int, error: OSError) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        return CannotListen(
            f"port {port} of {host} is in use", "perhaps it serves already; else: meshctl serve --http --port 0"
        )
    if error.errno == errno.EACCES:
        return CannotListen(f"port {port} of {host} is not for this user", "give --port a number above 1023")
    return CannotListen(f"cannot listen on port {port} of {host}: {error.strerror}", "give another --host or --port")


def _token(environ: Mapping[str, str]) -> bytes | None:
    """The token that requests must show, None if none was set. It is never an argument: everybody sees those."""
    where, token = TOKEN, environ.get(TOKEN, "")
    if not token and (file := environ.get(TOKEN_FILE)):
        where = os.path.expanduser(file)
        try:
            with open(where, encoding="utf-8") as stream:
                token = stream.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UsageError(
                f"cannot read the token from {where}: {why}", f"write it there, or unset {TOKEN_FILE}"
            ) from None
        if not token:
            raise UsageError(f"{where} is empty", f"write a token into it, or unset {TOKEN_FILE}")
    if token and not re.fullmatch(r"[!-~]+", token):
        raise UsageError(f"the token in {where} cannot stand in a header", "use letters, digits and -._~+/= only")
    return token.encode() or None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
