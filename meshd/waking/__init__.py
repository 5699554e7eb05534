"""Telling a session that mail waits, until it reads."""
