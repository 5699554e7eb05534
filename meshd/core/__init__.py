"""Decides. No I/O, no clock, no environment: time comes in as an argument, effects go out as values."""
