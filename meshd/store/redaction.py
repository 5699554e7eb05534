"""Hides a password: a URL as it may be shown, in a log, an error or `status`."""

from __future__ import annotations


def redacted(url: str) -> str:
    """The URL without user information and query, for logs and `status`."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if "@" in query:  # a password with a question mark, or a query with one: where it ends nobody knows
        place = "…"
    return f"{scheme}://{place.rpartition('@')[2]}" if rest else "…"
