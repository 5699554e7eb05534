"""`meshctl serve --http`: MCP over HTTP, in a process of its own beside the daemon.

`address` finds where to listen, `serve` runs until it is told to end, `app` has the endpoints. A request passes
`guard` (who may ask), `response` (what became of its response, as far as `delivered` can tell) and the MCP SDK.
`routing` finds the agent that makes it, by its session (`presence`: is its client there?) or by its name (`agents`),
and `tool_calls` carries it out on that agent's line to the daemon (`daemon_connection`).
"""
