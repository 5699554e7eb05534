"""Tool calls: of a session, and of requests that stand alone.

Both are carried out again if the daemon went meanwhile, and hand mail over through their exchange.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from meshd.core.names import check_name
from meshd.errors import UsageError
from meshd.mcp.daemon_client import DaemonGone
from meshd.mcp.http.agents import AgentLines
from meshd.mcp.http.daemon_connection import AgentLine
from meshd.mcp.http.response import Exchange
from meshd.mcp.session import McpSession
from meshd.mcp.tools import Tool

_MAX_TRIES = 4  # times that one call is carried out: it may be what ends the daemon


class SessionCall:
    """Carries out a tool call on its agent's line. Ids of what it sends are made from `key` and the request."""

    def __init__(self, line: AgentLine, key: str, exchange: Exchange) -> None:
        self._line = line
        self._key = key
        self._exchange = exchange

    async def call(self, tool: Tool, arguments: dict[str, Any], request_id: object) -> dict[str, Any]:
        # A client that reuses an id means another message if it says another thing.
        unique = (request_id, tool.name, _encoded(arguments))
        with self._exchange.waiting():
            session, result = await self._carried_out(tool, arguments, unique)
        if tool.method == "session.register":
            self._line.name = session.name

        def settle(written: bool) -> None:
            (session.delivered if written else session.dropped)(unique)

        if tool.reads:
            self._exchange.hand_over(result, settle)
        return result

    async def _carried_out(
        self, tool: Tool, arguments: dict[str, Any], unique: object
    ) -> tuple[McpSession, dict[str, Any]]:
        """By this daemon or by the next: what is sent has an id made from `unique`, and is not sent twice."""
        for _ in range(_MAX_TRIES - 1):
            with contextlib.suppress(DaemonGone):
                return await self._once(tool, arguments, unique)
        return await self._once(tool, arguments, unique)

    async def _once(
        self, tool: Tool, arguments: dict[str, Any], request_id: object
    ) -> tuple[McpSession, dict[str, Any]]:
        control = await self._line.control()
        session = McpSession(self._key, control)
        session.name = self._line.name
        return session, await session.call(tool, arguments, request_id)


def _encoded(arguments: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(arguments, order="sorted")
    except (ValueError, OverflowError, RecursionError, TypeError) as error:
        raise UsageError(f"the arguments cannot be sent: {type(error).__name__}", "Send valid Unicode.") from None


class LoneCall:
    """Carries out a tool call of a request that stands alone."""

    def __init__(self, names: AgentLines, exchange: Exchange, name: str | None, request_key: str | None) -> None:
        self._names = names
        self._exchange = exchange
        self._name = name
        self._request_key = request_key

    async def call(self, tool: Tool, arguments: dict[str, Any], request_id: object) -> dict[str, Any]:
        name = self._name
        if tool.method == "session.register":
            tool = tool._replace(method="register", own="name")  # there is no session to name: the name is hosted
        if tool.own is not None:
            given = arguments.get(tool.own)
            name = check_name(given) if isinstance(given, str) else name
            if name is None and given is None:
                raise UsageError("this request does not say who you are", f"Give {tool.own}.")
        line = self._names.line(name, self._exchange)
        # Ids of JSON-RPC begin anew with each client: they do not tell a repetition from another message.
        key = f"{name} {self._request_key}" if self._request_key else AgentLine.new_key()
        return await SessionCall(line, key, self._exchange).call(tool, arguments, None)
