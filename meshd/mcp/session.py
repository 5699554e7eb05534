"""One MCP session: its name, its connection to the daemon, and its tool calls."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import anyio
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, TextContent
from mcp_types import Tool as ListedTool

from meshd import __version__
from meshd.errors import Full, MeshError, NotAllowed, UsageError
from meshd.mcp.daemon_client import Control, DaemonError, encoded
from meshd.mcp.marking import escape, quoted
from meshd.mcp.parameters import input_schema
from meshd.mcp.tools import TOOLS, Tool, instructions
from meshd.observing.background import Background
from meshd.system.clock import mono

log = logging.getLogger("meshd.mcp")

NAME = "agent-mesh"
PROGRESS_EVERY = 5.0
MAX_WAITING = 200  # the daemon carries out 256 calls of a connection at once, and reads no further one

_AT_HAND: dict[str, Any] = {"anthropic/alwaysLoad": True}  # Claude Code shows a model only the names of all other tools


def _listed(tool: Tool) -> ListedTool:
    shown = ListedTool(
        name=tool.name, description=tool.help, input_schema=input_schema(tool.args), output_schema=tool.output
    )
    if tool.first:
        shown.meta = _AT_HAND
    return shown


_LISTED = ListToolsResult(tools=[_listed(tool) for tool in TOOLS.values()])
# What a model can do about an error, where the daemon's own hint is a command line.
_HINTS = {
    "denied": "Wait ten seconds, and send less.",
    "busy": "Nothing was sent. Try again in a while; tell your user if it lasts: nobody reads that mail.",
    "store_down": "Nothing was sent. Try again in a while; tell your user if it lasts: meshctl doctor.",
    "store_busy": "Nothing was sent. Try again in a while; tell your user if it lasts: meshctl doctor.",
    "outcome_unknown": "It may have been sent. Ask the peer before you send it again.",
    "not_found": "mesh_who shows who is there, mesh_inbox the ids of messages.",
    "timeout": "Try again later, or send it with mesh_send and go on.",
}


def _unheard(name: str) -> None:
    """For a transport that does not lose its sessions."""


class McpSession:
    """A live client of MCP. `key` names it across reconnections, so that a repeated call is known to be the same.

    `named` is told each name that the session takes: with that one it comes back.
    """

    def __init__(self, key: str, control: Control, named: Callable[[str], None] = _unheard) -> None:
        self.key = key
        self.name = ""
        self.wanted: str | None = None
        self.control = control
        self._named = named
        # What was handed over and is not known to have reached the client: receipts by the request's id.
        self._receipts: dict[object, str] = {}

    async def open(self, **facts: Any) -> None:
        """Tell the daemon that this session lives, and what is known of it (`meshd.core.opening.Opening`)."""
        opened = await self.control.call("session.open", **facts, session=self.key)
        self.name, self.wanted = opened["name"], opened["wanted"]
        self._named(self.name)

    @property
    def instructions(self) -> str:
        return instructions(self.name, self.wanted)

    async def call(self, tool: Tool, arguments: dict[str, Any], request_id: object) -> dict[str, Any]:
        """Carry a tool out and give its structured result. Raises `MeshError`."""
        try:
            given = msgspec.structs.asdict(msgspec.convert(arguments, tool.args))
        except msgspec.ValidationError as error:
            raise UsageError(
                f"{tool.name}: {error}", f"Parameters: {', '.join(tool.args.__struct_fields__)}."
            ) from None
        if tool.waits is not None and self.control.running >= MAX_WAITING:
            raise Full(f"{MAX_WAITING} calls of this session are waiting already", "Wait for their answers first.")
        if tool.own is not None and given[tool.own] is None:
            given[tool.own] = self._own_name()
        params = {tool.renamed.get(key, key): value for key, value in given.items() if value is not None} | tool.always
        if tool.sends:
            # The same call again, after a reconnection, is the same message; an id that is used anew is not.
            call = f"{self.key} {request_id!r} {tool.name} ".encode() + encoded(arguments)
            params["id"] = hashlib.sha256(call).hexdigest()[:32]
        if tool.reads:
            params["ack"] = "explicit"
        try:
            data = await self.control.call(tool.method, **params)
        except DaemonError as error:
            if error.daemon_kind != "timeout" or tool.late is None:
                raise
            data = tool.late
        if tool.method == "session.register":
            self.name = data["name"]
            self._named(self.name)
        if "receipt" in data:
            self._receipts[request_id] = data["receipt"]
        return tool.result(data if tool.own is None else data | {"own": given[tool.own] == self.name})

    def _own_name(self) -> str:
        if not self.name:
            raise UsageError("this session has no name yet", "Call mesh_register first.")
        return self.name

    def delivered(self, request_id: object) -> None:
        """The answer to this request has reached the client: what was in it is read."""
        if (receipt := self._receipts.pop(request_id, None)) is not None:
            self.control.tell("confirm", receipt=receipt)

    def dropped(self, request_id: object) -> None:
        """The answer did not reach the client: what was in it is unread again."""
        if (receipt := self._receipts.pop(request_id, None)) is not None:
            self.control.tell("release", receipt=receipt)


class ToolCaller(Protocol):
    """Who carries the tool call of one request out: its `McpSession`, or what leads to one."""

    async def call(self, tool: Tool, arguments: dict[str, Any], request_id: object) -> dict[str, Any]: ...


class ToolCallers(Protocol):
    """Leads from a request to its caller: what a transport gives the server as its state."""

    async def of(self, ctx: Context) -> ToolCaller: ...


Context = ServerRequestContext[ToolCallers, Any]


async def _list_tools(ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
    return _LISTED


async def _call_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """A tool's result; what goes wrong is a result too, with a hint that a model can act on."""
    tool = TOOLS.get(params.name)
    try:
        if tool is None:
            raise UsageError(f"no tool {params.name[:64]!r}", f"There are: {', '.join(TOOLS)}.")
        session = await ctx.lifespan_context.of(ctx)
        arguments = dict(params.arguments or {})
        async with _progress(ctx, tool, arguments):
            result = await session.call(tool, arguments, ctx.request_id)
    except MeshError as error:
        kind = error.daemon_kind if isinstance(error, DaemonError) else error.kind
        hint = _HINTS.get(kind, error.hint)
        # Who holds a name says of itself where it runs: the only words of a stranger in an error.
        what = quoted(error.message) if kind == NotAllowed.kind else escape(error.message)
        text = what + (f"\nNext: {escape(hint)}" if hint else "")
        return CallToolResult(content=[TextContent(text=text)], is_error=True)
    return CallToolResult(content=[TextContent(text=tool.text(result))], structured_content=result)


@contextlib.asynccontextmanager
async def _progress(ctx: Context, tool: Tool, arguments: dict[str, Any]) -> AsyncIterator[None]:
    """Tell a client that asked for it how long a waiting call has waited."""
    if tool.waits is None or ctx.meta is None or "progress_token" not in ctx.meta:
        yield
        return
    total = arguments.get(tool.waits)
    background = Background(log)
    background.start(_tell_progress(ctx, float(total) if isinstance(total, int | float) else None), "telling progress")
    try:
        yield
    finally:
        background.cancel()


async def _tell_progress(ctx: Context, total: float | None) -> None:
    started = mono()
    with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # the client has gone
        while True:
            await ctx.session.report_progress(round(mono() - started, 1), total, "waiting")
            await asyncio.sleep(PROGRESS_EVERY)


def server() -> Server[ToolCallers]:
    """The MCP server for all sessions of a process."""
    return Server(
        NAME,
        version=__version__,
        instructions=instructions(""),
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
    )
