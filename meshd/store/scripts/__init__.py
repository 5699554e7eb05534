"""The scripts that run in the store: a Lua file for each step that must be whole or not at all."""
