"""`meshctl serve --http`: MCP over HTTP, in a process of its own beside the daemon.

`address` finds where to listen, `serve` runs until it is told to end, `app` has the endpoints. A request passes
`guard` (who may ask), `exchange` (what became of its response) and the MCP SDK, and reaches the daemon through a
`line` that `front` finds for it.
"""
