"""MCP over HTTP: real servers, the SDK's own client in both eras and over SSE, and clients that mean harm."""
