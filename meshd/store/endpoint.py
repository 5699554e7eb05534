"""Where the store is: from a URL to a connection that is not yet open.

Every connection asks again, because with Sentinel or Cluster the answer changes.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio.connection import (
    URL_QUERY_ARGUMENT_PARSERS,
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.event import EventDispatcher
from redis.exceptions import RedisError

from meshd.errors import ConfigError, StoreDown
from meshd.store import replies
from meshd.store.bounds import BOUND, BoundedParser
from meshd.store.pulse import Pulse
from meshd.store.redaction import redacted
from meshd.store.slots import Slots

CONNECT_TIMEOUT = 5.0

Options = dict[str, Any]


class Endpoint(Protocol):
    """`shown` names the store for people, without its password; `slots` are the turns of those who connect, `pulse` is
    what all connections know of the store.
    """

    shown: str
    slots: Slots
    pulse: Pulse

    async def connection(self, bound: int = BOUND) -> AbstractConnection:
        """A new connection to the server that takes writes now; `bound`: bytes of a reply. Raises `StoreDown`."""
        ...

    async def renew(self) -> bool:
        """The store refuses our account: whether there is another one to try."""
        ...


# redis-py would read the metadata of its own package for each connection, which takes longer than connecting.
_DRIVER = DriverInfo()
# Nor does each of a thousand connections need listeners of its own to events that nobody makes here.
_EVENTS = EventDispatcher()


def _make(cls: type[AbstractConnection], options: Options, bound: int = BOUND) -> AbstractConnection:
    named: Options = {} if {"lib_name", "lib_version"} & set(options) else {"driver_info": _DRIVER}
    # redis-py would repeat a command by itself, and each repeated XADD is another entry: our loop repeats,
    # with the message's id. Protocol 2 keeps the shapes of replies the same on every server.
    return cls(
        **options,
        **named,
        event_dispatcher=_EVENTS,
        parser_class=functools.partial(BoundedParser, bound=bound),  # type: ignore[arg-type]
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        # Reads have their timeout from Link; one on the connection would put a task around every write.
        socket_timeout=None,
        socket_connect_timeout=CONNECT_TIMEOUT,
        decode_responses=False,
    )


class _ByUrl:
    """What endpoints have in common. `url_now`, if set, reads what the URL is by now, as a file may say."""

    def __init__(self, shown: str, options: Options) -> None:
        self.shown = shown
        self.slots, self.pulse = Slots(), Pulse()
        self.url_now: Callable[[], Awaitable[str | None]] | None = None
        self._options = options
        self._prefix = ""

    async def renew(self) -> bool:
        """A password that was changed stands in the URL's file; whatever else is new there waits for a restart."""
        try:
            url = await self.url_now() if self.url_now is not None else None
            fresh = from_url(url, self._prefix) if url else None
        except (ConfigError, OSError):
            return False
        if type(fresh) is not type(self) or fresh.shown != self.shown or fresh._options == self._options:
            return False
        self._options = fresh._options
        return True


class Direct(_ByUrl):
    """One server, by TCP, TLS or Unix socket."""

    def __init__(self, shown: str, cls: type[AbstractConnection], options: Options) -> None:
        super().__init__(shown, options)
        self._cls = cls

    async def connection(self, bound: int = BOUND) -> AbstractConnection:
        return _make(self._cls, self._options, bound)


class Sentinel(_ByUrl):
    """The master of a Sentinel group: asks each sentinel in turn."""

    def __init__(self, shown: str, hosts: list[tuple[str, int]], service: str, options: Options) -> None:
        super().__init__(shown, options)
        self._hosts, self._service = hosts, service

    async def connection(self, bound: int = BOUND) -> AbstractConnection:
        answer = await _ask_any(
            self._hosts, {}, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service), f"no sentinel of {self.shown}"
        )
        if answer is None:
            raise StoreDown(f"the sentinels know no master named {self._service!r}", "check the name in the URL")
        host, port = replies.row(answer, str, str, wanted="where the master is")
        return _make(Connection, {**self._options, "host": host, "port": replies.port(port)}, bound)


class Cluster(_ByUrl):
    """The Cluster node that holds the prefix's slot: all keys share one hash tag."""

    def __init__(
        self, shown: str, hosts: list[tuple[str, int]], prefix: str, cls: type[AbstractConnection], options: Options
    ) -> None:
        super().__init__(shown, options)
        self._hosts, self._prefix = hosts, prefix
        self._cls = cls

    async def connection(self, bound: int = BOUND) -> AbstractConnection:
        from redis.crc import key_slot

        slot = key_slot(self._prefix.encode())
        answer = await _ask_any(self._hosts, self._options, ("CLUSTER", "SLOTS"), f"no node of {self.shown}", self._cls)
        for first, last, master in replies.slots(answer):
            if first <= slot <= last:
                host, port = master[0] or self._hosts[0][0], master[1]
                return _make(self._cls, {**self._options, "host": host, "port": port}, bound)
        raise StoreDown(f"no node of {self.shown} holds slot {slot}", "check the cluster: redis-cli cluster info")


async def _ask_any(
    hosts: list[tuple[str, int]],
    options: Options,
    command: tuple[str, ...],
    nobody: str,
    cls: type[AbstractConnection] = Connection,
) -> Any:
    """The first answer that any of the hosts gives. Raises `StoreDown` with every reason."""
    reasons: list[str] = []
    for host, port in list(hosts):
        connection = _make(cls, {**options, "host": host, "port": port})
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command(*command)
                answer = await connection.read_response()
            # Who has answered is asked first next time: one that says nothing would cost each connection its time.
            hosts.remove((host, port))
            hosts.insert(0, (host, port))
            return answer
        except Exception as error:  # redis-py trips over what is no store in ways of its own
            reasons.append(f"{host}:{port}: {str(error) or type(error).__name__}")
        finally:
            await connection.disconnect(nowait=True)
    raise StoreDown(f"{nobody} answers ({'; '.join(reasons)})", "start it, or correct redis_url")


def unix(path: str, shown: str) -> Direct:
    return Direct(shown, UnixDomainSocketConnection, {"path": path})


def from_url(url: str, prefix: str) -> Direct | Sentinel | Cluster:
    """The endpoint that a URL means. Raises `ConfigError`, which never holds the password."""
    shown = redacted(url)
    scheme, _, rest = url.partition("://")
    try:
        if scheme in ("redis", "rediss", "unix"):
            options: Options = dict(parse_url(url))
            cls = options.pop("connection_class", Connection)
            if scheme == "unix" and not options.get("path"):
                raise ValueError("no path")
            database = urlsplit(url).path.strip("/")
            if scheme != "unix" and database and not database.isdecimal():
                raise ValueError("the database is not a number")  # redis-py would take number 0 without a word
            return Direct(shown, cls, _checked(cls, options))
        if scheme in _GROUPS:
            return _GROUPS[scheme](url, shown, prefix)
    except ValueError as error:
        # Where a URL cannot be taken apart, what the error quotes may be a piece of its password.
        tells = rest.isascii() and not {"@", "?"} & set(rest)
        if isinstance(error, _BadOption):
            tells = "@" not in rest.partition("?")[2]
        why = str(error) if tells else "not a URL; encode the password with %"
        raise ConfigError(f"redis_url {shown}: {why}", _EXAMPLES) from None
    raise ConfigError(f"redis_url: unknown scheme {scheme[:20]!r}" if rest else "redis_url: no scheme", _EXAMPLES)


_EXAMPLES = (
    "as in redis://HOST:6379/0, rediss://…, unix:///PATH, redis+sentinel://H1:26379,H2:26379/SERVICE/0, "
    "redis+cluster://H1:6379"
)


# What a URL may ask of a connection. redis-py takes more: what we decide ourselves, and objects, which no URL can hold.
_OPTIONS = frozenset(
    {
        *("host", "port", "path", "db", "username", "password", "client_name", "lib_name", "lib_version"),
        *("socket_keepalive", "socket_read_size", "health_check_interval", "retry_on_timeout"),
        *("ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path"),
        *("ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "ssl_password"),
    }
)


class _BadOption(ValueError):
    """Names the option of a URL that no connection can be made with, and not its value."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the option {name[:40]!r} is unknown, or its value is not one for it")


def _checked(cls: type[AbstractConnection], options: Options) -> Options:
    """The options, tried on a connection that is not opened. Raises `_BadOption`."""
    bad = next((name for name in options if name not in _OPTIONS), None)
    if bad is None and not _usable(cls, options):
        without = {name: {other: options[other] for other in options if other != name} for name in options}
        bad = next((name for name, others in without.items() if _usable(cls, others)), "?")
    if bad is not None:
        raise _BadOption(bad)
    return options


def _usable(cls: type[AbstractConnection], options: Options) -> bool:
    try:
        _make(cls, options)
    except (RedisError, TypeError, ValueError):
        return False
    return True


def _sentinel(url: str, shown: str, prefix: str) -> Sentinel:
    hosts, options, path = _group(url, 26379)
    service, _, db = path.partition("/")
    if not service:
        raise ValueError("no service name after the hosts")
    if db:
        options["db"] = int(db)
    return Sentinel(shown, hosts, service, _checked(Connection, options))


def _cluster(url: str, shown: str, prefix: str) -> Cluster:
    hosts, options, _ = _group(url, 6379)
    cls = SSLConnection if url.startswith("rediss") else Connection
    return Cluster(shown, hosts, prefix, cls, _checked(cls, options))


_GROUPS: dict[str, Callable[[str, str, str], Sentinel | Cluster]] = {
    "redis+sentinel": _sentinel,
    "redis+cluster": _cluster,
    "rediss+cluster": _cluster,
}


def _group(url: str, default_port: int) -> tuple[list[tuple[str, int]], Options, str]:
    """Hosts, connection options and path of a URL with several hosts."""
    parts = urlsplit(url)
    account, _, places = parts.netloc.rpartition("@")
    options: Options = {}
    for name, values in parse_qs(parts.query).items():
        try:
            options[name] = URL_QUERY_ARGUMENT_PARSERS.get(name, str)(values[0])
        except (TypeError, ValueError):
            raise _BadOption(name) from None
    if account:
        user, _, password = account.partition(":")
        if user:
            options["username"] = unquote(user)
        if password:
            options["password"] = unquote(password)
    hosts = []
    for place in places.split(","):
        host, _, port = place.rpartition(":") if ":" in place else (place, "", "")
        if not host:
            raise ValueError("an empty host")
        hosts.append((host.strip("[]"), int(port) if port else default_port))
    return hosts, options, parts.path.strip("/")
