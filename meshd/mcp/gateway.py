"""Serves shims: each connection is one MCP session, from a first line that says who it is to its end.

Both sides speak MCP, a line each, and a few words of our own, which the shim keeps from its client:
`$mesh/name {name}` tells it the session's name, `$mesh/refused {what, then}` that there is none, `$mesh/stopping {}`
that the daemon was stopped on purpose;
`$mesh/wake {text}` asks it to write to its session's inbox socket, `$mesh/failed {rung, why}` says that it could
not, `$mesh/written {id}` that an answer has been written to the client, which makes mail in it read, and
`$mesh/dropped {id}` that it was not, because the client had cancelled the request.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import anyio
import msgspec
from mcp.server.runner import serve_loop
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter
from pydantic import ValidationError

from meshd.core.opening import Opening
from meshd.core.wake import RUNGS
from meshd.errors import MeshError
from meshd.mcp.daemon_client import Control
from meshd.mcp.session import Context, McpSession, server
from meshd.observing.background import Background

log = logging.getLogger("meshd.mcp")

OURS = b'"$mesh/'
CHANNEL = "claude/channel"


class _Word(msgspec.Struct):
    """One of our own words."""

    method: str
    params: dict[str, Any]


class Gateway:
    """`control` is the path of the daemon's socket."""

    def __init__(self, control: str) -> None:
        self._control = control
        self._server = server()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One session, from its first line to its end. When the daemon goes, it ends, and the shim comes back."""
        try:
            opening = msgspec.json.decode(await reader.readline(), type=Opening)
            conversation = _Conversation(reader, writer)
            control = await Control.open(self._control, conversation.told)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            log.warning("a session was refused: %s", error)
            writer.close()
            return
        try:
            session = conversation.session = McpSession(
                opening.session, control, lambda name: conversation.say("$mesh/name", {"name": name})
            )
            facts = msgspec.structs.asdict(opening)
            del facts["session"]
            await session.open(**facts)
            background = Background(log)
            ended = background.start(control.wait_closed(), "waiting for the daemon's end")
            served = background.start(conversation.run(self._server, channel="channel" in opening.rungs), "a session")
            await asyncio.wait([ended, served], return_when=asyncio.FIRST_COMPLETED)
            await background.end()
        except MeshError as error:
            log.warning("a session was refused: %s", error.message)
            conversation.say("$mesh/refused", {"what": error.message, "then": error.hint})
        finally:
            await control.close()
            writer.close()


class _Conversation:
    """Lines to messages and back, for the SDK's own loop."""

    session: McpSession

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def of(self, ctx: Context) -> McpSession:
        return self.session

    def say(self, method: str, params: dict[str, Any]) -> None:
        self._writer.write(msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params}) + b"\n")

    def told(self, method: str, params: dict[str, Any]) -> None:
        """The daemon wants a rung rung, or says that it was stopped on purpose."""
        match method, params.get("rung"):
            case "session.ring", "channel":
                self.say(f"notifications/{CHANNEL}", {"content": params["text"], "meta": {"source": "agent-mesh"}})
            case "session.ring", _:
                self.say("$mesh/wake", {"text": params["text"]})
            case "session.stopping", _:
                self.say("$mesh/stopping", {})

    async def run(self, mcp: Any, *, channel: bool) -> None:
        to_server, from_client = anyio.create_memory_object_stream[SessionMessage | Exception](16)
        to_client, from_server = anyio.create_memory_object_stream[SessionMessage](16)
        options = mcp.create_initialization_options(experimental_capabilities={CHANNEL: {}} if channel else None)
        options.instructions = self.session.instructions

        async def read() -> None:
            async with to_server:
                while line := await self._reader.readline():
                    if OURS in line and self._took(line):
                        continue
                    if (item := self._parsed(line)) is not None:
                        await to_server.send(item)

        async def write() -> None:
            async with from_server:
                async for item in from_server:
                    message = item.message
                    if self.session.control.gone:
                        continue  # no answer but the news of the end: the shim asks the next daemon
                    self._writer.write(message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                    if isinstance(message, JSONRPCError):
                        self.session.dropped(message.id)
                    elif isinstance(message, JSONRPCResponse) and "tools" in message.result:
                        self.session.control.tell("session.ready")  # a wake names a tool: now it is known
                    await self._writer.drain()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                group.start_soon(write)
                await serve_loop(mcp, from_client, to_client, lifespan_state=self, init_options=options)
                group.cancel_scope.cancel()
        except* (OSError, ValueError):  # suppress() lets a group through before Python 3.12
            pass  # the shim has gone, or wrote a line that is longer than any may be

    def _parsed(self, line: bytes) -> SessionMessage | None:
        """The message in a line. What is none is answered as JSON-RPC wants it, and harms nothing else."""
        if not line.strip():
            return None
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValidationError:
            return self._unusual(line)
        if isinstance(message, JSONRPCNotification) and b'"id"' in line:
            return self._unusual(line)  # to the SDK a request whose id is none is a notification
        return SessionMessage(message)

    def _unusual(self, line: bytes) -> SessionMessage | None:
        """A line that is not quite a message. Who waits for an answer to it gets one, under its id if it has one."""
        try:
            found = json.loads(line)  # lenient: it takes half a character, where a client has cut a text off
        except (ValueError, RecursionError):
            self._refuse(None, -32700, "not JSON")
            return None
        try:
            kind = JSONRPCRequest if "id" in found else JSONRPCNotification
            return SessionMessage(kind.model_validate(found, by_name=False))
        except (ValidationError, TypeError):
            request_id = found.get("id") if isinstance(found, dict) else None
            self._refuse(request_id if type(request_id) in (int, str) else None, -32600, "not a JSON-RPC request")
            return None

    def _refuse(self, request_id: int | str | None, code: int, what: str) -> None:
        error = {"code": code, "message": f"{what}: send one JSON-RPC 2.0 object a line, no batches"}
        self._writer.write(json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode() + b"\n")

    def _took(self, line: bytes) -> bool:
        """Whether the line was one of our own words; they are answered by nobody."""
        try:
            word = msgspec.json.decode(line, type=_Word)
        except msgspec.MsgspecError:
            return False
        match word.method, word.params:
            case "$mesh/written", {"id": request_id}:
                self.session.delivered(request_id)
            case "$mesh/dropped", {"id": request_id}:
                self.session.dropped(request_id)
            case "$mesh/failed", {"rung": str() as rung, "why": str() as why} if rung in RUNGS:
                self.session.control.tell("session.failed", rung=rung, why=why[:200])
            case _:
                return False
        return True
