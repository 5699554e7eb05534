"""`meshctl serve --http`: MCP over HTTP."""

from __future__ import annotations


def run(host: str, port: int) -> int:
    raise NotImplementedError
