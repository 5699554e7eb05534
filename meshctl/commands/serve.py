"""`meshctl serve`: MCP on stdio, as `meshctl mcp`; or over HTTP, in this process."""

from __future__ import annotations

from typing import Any

from meshctl import shim
from meshctl.client import connect
from meshctl.starting import start
from meshd import paths
from meshd.errors import UsageError


def run(params: Any) -> int:
    """The exit code. Raises `MeshError`."""
    if not params.http:
        defaults = type(params)()
        if (params.host, params.port) != (defaults.host, defaults.port):
            raise UsageError("--host and --port are for HTTP", "meshctl serve --http")
        return shim.run()
    from meshd.mcp.http.address import listen

    address = listen(params.host, params.port)
    if paths.may_start():
        connection = connect() or start()
        connection.close()
    from meshd.mcp.http.serve import run as serve

    return serve(address)
