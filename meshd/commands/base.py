"""What a command is, and what its handler is given."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from meshd.core.message import Message
from meshd.core.names import check_id, check_name, new_id
from meshd.errors import StoreError, UsageError

if TYPE_CHECKING:
    from meshd.hosting.supervisor import Supervisor
    from meshd.receiving.agent import Agent

DEFAULT_NAME = "cli"
LONGEST_WAIT = 30 * 86400.0
_FRESH = 2.0  # seconds that a reading command waits for what the store already has


# What a shell offers where a name is typed: every name of the mesh, or those that the daemon hosts.
AGENTS = "agents"
HOSTED = "hosted"


class Params(msgspec.Struct, kw_only=True, rename={"sender": "from"}):
    """Base of all parameters. Unknown ones are ignored."""


def about(description: str, complete: str | tuple[str, ...] = (), *, positional: bool = False) -> msgspec.Meta:
    """What is said of a parameter. `complete`: words that a shell may offer for it, or `AGENTS` or `HOSTED`;
    `positional`: it may be left out, and yet stands in its place with no option before it.
    """
    return msgspec.Meta(description=description, extra={"complete": complete, "positional": positional})


class Handover:
    """Messages on their way to the agent: read when confirmed, unread again when released.

    `awaited`: somebody waits to hear of the confirmation, and no longer than for a moment.
    """

    awaited = False

    def __init__(self, agent: Agent, messages: Sequence[Message], lost: int = 0) -> None:
        self.agent = agent
        self.messages = messages
        self.lost = lost
        self._ids = [message.id for message in messages]
        self._open = True

    async def confirm(self) -> None:
        """Write down that they were read. Raises `Full`; then they are unread again."""
        if not self._open:
            return
        self._open = False
        core = self.agent.core
        try:
            await self.agent.execute(lambda: core.mark_read(self._ids, self.lost))
        except BaseException:
            core.inbox.release(self._ids)
            raise

    def release(self) -> None:
        if self._open:
            self._open = False
            self.agent.core.inbox.release(self._ids)
            self.agent.wake_waiters()


class Result(NamedTuple):
    """What a handler gives: JSON data, and what was handed over with it."""

    data: dict[str, Any]
    handover: Handover | None = None


class Printed(NamedTuple):
    """A result as a terminal shows it. Every text of a stranger in it was made safe."""

    out: str = ""
    err: str = ""
    code: int = 0


class Call(abc.ABC):
    """One call of a command: the daemon, the caller, and a way to give items before the result."""

    # Characters of text that one result may carry: a line is at most 1 MiB, and JSON may need six bytes for one.
    max_bytes = 1 << 17
    # What the caller's process says of itself, as far as it was passed on.
    environment: Mapping[str, str] = {}

    def __init__(self, supervisor: Supervisor, default_name: str | None, given_id: str | None = None) -> None:
        self.mesh = supervisor
        self._given_id = given_id
        self._default_name = default_name

    @abc.abstractmethod
    async def emit(self, result: Result) -> None:
        """Give one item of a stream; returns when it may be followed by the next."""

    def new_id(self) -> str:
        """An id for what this call sends: the caller's own if it gave one, so that its repetition is known."""
        given, self._given_id = self._given_id, None
        return given or new_id()

    def sender(self, given: str | None) -> str:
        """Who speaks: the parameter, else the caller's own name, else the configured one, else `cli`."""
        if given is None:
            given = self._default_name or self.mesh.settings.name or DEFAULT_NAME
        return check_name(given, "sender")

    @property
    def names_itself(self) -> bool:
        return self._default_name is not None

    async def host(self, name: str, *, stealth: bool = False) -> Agent:
        """The agent of that name, hosted from now on if it was not."""
        check_name(name)
        return self.mesh.agents.get(name) or await self.mesh.host(name, stealth=stealth)

    def hosted(self, name: str) -> Agent | None:
        """The agent of that name, if it is hosted: to look at what it has, with no need to host it for that."""
        return self.mesh.agents.get(check_name(name))

    async def fresh(self, agent: Agent) -> None:
        """Wait until the agent has what the store had at this moment, if the store answers at all."""
        commands, keys, group = self.mesh.commands, self.mesh.keys, self.mesh.group
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_FRESH):
                if not commands.up.is_set():
                    return
                last, group_last = await asyncio.gather(
                    commands.call("XREVRANGE", keys.inbox(agent.name), "+", "-", "COUNT", 1),
                    commands.call("XREVRANGE", keys.group, "+", "-", "COUNT", 1),
                )
                async with waiting(agent) as changed:
                    while agent.gone is None and not (agent.has_read(last) and group.has_read(group_last)):
                        await changed.wait()
                        changed.clear()

    @contextlib.asynccontextmanager
    async def attached(self, agent: Agent, *, hidden: bool = False) -> AsyncIterator[None]:
        """The caller is a live session of the agent for as long as this lasts."""
        if hidden:
            yield
            return
        agent.listening += 1
        self.mesh.presence.registry_changed(agent)
        try:
            yield
        finally:
            agent.listening -= 1
            self.mesh.presence.registry_changed(agent)


@contextlib.asynccontextmanager
async def waiting(agent: Agent) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever something about the agent has changed."""
    changed = asyncio.Event()
    agent.waiters.add(changed)
    try:
        yield changed
    finally:
        agent.waiters.discard(changed)


class Command(NamedTuple):
    """A row of the table.

    `run` is the handler, None for a command that the client carries out by itself. `show` renders the
    result, `show_item` an item of a stream. `short` gives one-letter options. A `hidden` command is for programs
    of our own: no help, completion or manual shows it.
    """

    name: str
    params: type[Params]
    run: Callable[[Call, Any], Coroutine[Any, Any, Result]] | None
    show: Callable[[dict[str, Any]], Printed]
    help: str
    example: str
    short: dict[str, str] = {}
    show_item: Callable[[dict[str, Any]], Printed] | None = None
    timeout_on_stdout: bool = False
    starts_daemon: bool = True
    hidden: bool = False


def check_text(text: str, limit: int, what: str = "message") -> str:
    """A text that can be sent. Raises `UsageError`; then nothing has happened."""
    if not text:
        raise UsageError(f"the {what} is empty", f"give a text, or - to read the {what} from standard input")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise UsageError(f"the {what} is not valid UTF-8", "send text; encode binary data, as with base64") from None
    if size > limit:
        raise UsageError(
            f"the {what} has {size} bytes, over the limit of {limit}",
            "put it into a file and send the path, or raise AGENT_MESH_MAX_MESSAGE for sender and receiver",
            size=size,
            limit=limit,
        )
    return text


def check_seconds(value: float, what: str) -> float:
    if not 0 < value <= LONGEST_WAIT:
        raise UsageError(f"{what} must be more than 0 and at most {LONGEST_WAIT:g} seconds", f"as in --{what} 60")
    return value


def check_optional_id(value: str | None, what: str) -> str | None:
    return None if value is None else check_id(value, what)


def deadline_in(seconds: float) -> float:
    """A moment on the loop's clock."""
    return asyncio.get_running_loop().time() + seconds


def ago(ts: float | None) -> str:
    """How long ago, for a table: `5s`, `3m`, `2h`, `4d`."""
    if ts is None:
        return "-"
    return duration(time.time() - ts)


def duration(seconds: float) -> str:
    seconds = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def shown_worked(worked: dict[str, Any] | None) -> str:
    """The last wake that was followed by a read, for a table."""
    return f"{worked['rung']}, read after {duration(worked['waited'])}" if worked else "-"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)
