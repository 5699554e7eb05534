"""`meshctl serve --http`: MCP over HTTP, in a process of its own beside the daemon.

`address` finds where to listen, `serve` runs until it is told to end, `app` has the endpoints. A request passes
`guard` (who may ask), `exchange` (what became of its response, as far as `taken` can tell) and the MCP SDK. `front`
finds the agent that makes it, by its session (`attendance`: is its client there?) or by its name (`names`), and
`calls` carries it out on that agent's `line` to the daemon.
"""
