"""What a command is, and what its handler is given."""

from __future__ import annotations

import abc
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from meshd.core.names import check_name, new_id

if TYPE_CHECKING:
    from meshd.hosting.configuration import Configuration
    from meshd.hosting.names import Names
    from meshd.receiving.agent import Agent
    from meshd.receiving.handover import Delivery

DEFAULT_NAME = "cli"


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


class Result(NamedTuple):
    """What a handler gives: JSON data, and what was handed over with it."""

    data: dict[str, Any]
    handover: Delivery | None = None


class Printed(NamedTuple):
    """A result as a terminal shows it. Every text of a stranger in it was made safe."""

    out: str = ""
    err: str = ""
    code: int = 0


class Call(abc.ABC):
    """One call of a command: who calls, and a way to give items before the result."""

    # Characters of text that one result may carry: a line is at most 1 MiB, and JSON may need six bytes for one.
    max_bytes = 1 << 17
    # What the caller's process says of itself, as far as it was passed on.
    environment: Mapping[str, str] = {}

    def __init__(
        self, names: Names, configuration: Configuration, default_name: str | None, given_id: str | None = None
    ) -> None:
        self._names = names
        self._configuration = configuration
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
            given = self._default_name or self._configuration.current.name or DEFAULT_NAME
        return check_name(given, "sender")

    @property
    def names_itself(self) -> bool:
        return self._default_name is not None

    async def host(self, name: str, *, stealth: bool = False) -> Agent:
        """The agent of that name, hosted from now on if it was not."""
        check_name(name)
        return self._names.agents.get(name) or await self._names.host(name, stealth=stealth)

    def hosted(self, name: str) -> Agent | None:
        """The agent of that name, if it is hosted: to look at what it has, with no need to host it for that."""
        return self._names.agents.get(check_name(name))


class Nothing(NamedTuple):
    """What a command needs of the daemon that needs nothing."""


class Command(NamedTuple):
    """A row of the table.

    `run` is the handler, None for a command that the client carries out by itself. It gets the call, the parameters,
    and what it uses: `needs`, a named tuple whose fields are parts of the daemon by their names. `show` renders the
    result, `show_item` an item of a stream. `short` gives one-letter options. A `hidden` command is for programs
    of our own: no help, completion or manual shows it.
    """

    name: str
    params: type[Params]
    run: Callable[[Call, Any, Any], Coroutine[Any, Any, Result]] | None
    show: Callable[[dict[str, Any]], Printed]
    help: str
    example: str
    short: dict[str, str] = {}
    show_item: Callable[[dict[str, Any]], Printed] | None = None
    timeout_on_stdout: bool = False
    starts_daemon: bool = True
    hidden: bool = False
    needs: type[tuple[Any, ...]] = Nothing
