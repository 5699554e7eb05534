"""MCP: the tools, and the sessions that call them, over stdio through a shim or over HTTP.

Runs in processes of its own, beside the daemon: the only room that imports the MCP SDK. It reaches the daemon
through the control socket like every other client.
"""
