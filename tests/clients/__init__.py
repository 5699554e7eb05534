"""Whole sessions of real MCP clients against a scripted model, without a login and without a network."""
