"""MCP sessions as a client has them: a real `meshctl mcp`, a real gateway, a real daemon."""
