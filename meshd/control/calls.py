"""A command called: by a program, or by a command line. What differs is how its results are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from meshd.commands.base import Call, Command, Params, Printed, Result
from meshd.control import cli
from meshd.control.client import CHUNK, Client
from meshd.errors import MeshError, UsageError
from meshd.hosting.configuration import Configuration
from meshd.hosting.names import Names
from meshd.hosting.sessions import Sessions
from meshd.receiving.agent import Agent
from meshd.receiving.handover import Delivery

# A model's client cuts a result at 25,000 tokens, and what was cut would count as read.
SESSION_BYTES = 24 * 1024


class Authority(NamedTuple):
    """What it is decided by who a caller is, and for whom it may speak and read."""

    names: Names
    sessions: Sessions
    configuration: Configuration


class RpcCall(Call):
    """A command called by a program: items become notifications `<method>.item`."""

    def __init__(
        self, authority: Authority, client: Client, command: Command, request_id: Any, *, explicit: bool = False
    ) -> None:
        super().__init__(
            authority.names, authority.configuration, client.session.name if client.session else client.name
        )
        self._sessions = authority.sessions
        self._client = client
        self._command = command
        self._id = None if request_id is msgspec.UNSET else request_id
        self._explicit = explicit
        if client.session is not None:
            self.max_bytes = SESSION_BYTES

    def sender(self, given: str | None) -> str:
        name = super().sender(given)
        self._check_free(name)
        return name

    async def host(self, name: str, *, stealth: bool = False) -> Agent:
        self._check_free(name)
        return await super().host(name, stealth=stealth)

    def hosted(self, name: str) -> Agent | None:
        self._check_free(name)
        return super().hosted(name)

    def _check_free(self, name: str) -> None:
        """A session speaks and reads by its own name, and for nobody who is a live session too."""
        if self._client.session is not None:
            self._sessions.check_free(name, self._client.session)

    async def emit(self, result: Result) -> None:
        params = {"request": self._id, "item": self.give(result)}
        self._client.connection.send({"jsonrpc": "2.0", "method": f"{self._command.name}.item", "params": params})
        await self._client.connection.room()

    def give(self, result: Result) -> dict[str, Any]:
        """The result's data, with a receipt if the caller wants to confirm the hand-over itself."""
        if result.handover is None:
            return result.data
        receipt = self._client.hand_over(result.handover, explicit=self._explicit)
        return result.data if receipt is None else {**result.data, "receipt": receipt}


class CliCall(Call):
    """A command line of `meshctl`: parsed, run and rendered here; read means that the client has written it."""

    max_bytes = 64 << 20  # what is printed goes out in pieces

    def __init__(
        self,
        authority: Authority,
        supply: Callable[[type[tuple[Any, ...]]], tuple[Any, ...]],
        client: Client,
        environment: Mapping[str, str],
        given_id: str | None,
    ) -> None:
        """`supply` gives a command what it needs."""
        super().__init__(authority.names, authority.configuration, environment.get("AGENT_MESH_NAME") or None, given_id)
        self._supply = supply
        self.environment = environment
        self._client = client
        self._parsed: cli.Parsed

    async def run(self, argv: list[str], stdin: str | None) -> Printed:
        parsed = cli.parse(argv)
        if isinstance(parsed, Printed):
            return parsed
        self._parsed = parsed
        if parsed.command.run is None:
            raise UsageError(f"{parsed.command.name} runs in the client", "upgrade meshctl to this daemon's version")
        try:
            params = _with_stdin(parsed.params, stdin)
            result = await parsed.command.run(self, params, self._supply(parsed.command.needs))
            printed = cli.render(parsed, result.data)
            if result.handover is not None:
                await self._hand_over(printed, result.handover)
                return Printed(code=printed.code)
            if len(printed.out) > CHUNK:
                await self._client.write(printed)
                return Printed(code=printed.code)
        except MeshError as error:
            return cli.render_error(error, parsed)
        return printed

    async def emit(self, result: Result) -> None:
        printed = cli.render_item(self._parsed, result.data)
        if result.handover is not None:
            await self._hand_over(printed, result.handover)
        else:
            await self._client.write(printed)

    async def _hand_over(self, printed: Printed, handover: Delivery) -> None:
        try:
            await self._client.write(printed)
            await handover.confirm()
        finally:
            handover.release()


def _with_stdin(params: Params, stdin: str | None) -> Params:
    """`-` as MESSAGE or TEXT means standard input."""
    for field in ("message", "text", "input"):
        if getattr(params, field, None) == "-":
            if stdin is None:
                raise UsageError("standard input was not read", f"give the {field} itself")
            return msgspec.structs.replace(params, **{field: stdin})
    return params
