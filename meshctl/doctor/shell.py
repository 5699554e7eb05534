"""`redis-cli` as it reaches the store, for commands that are pasted into a shell. No password is ever in them."""

from __future__ import annotations

import os
import shutil
import sys
from urllib.parse import urlsplit

from meshctl.doctor.facts import Facts
from meshctl.doctor.finding import quote
from meshd import paths
from meshd.store.redaction import redacted

_FROM_FILE = "import tomllib, sys; print(tomllib.load(open(sys.argv[1], 'rb'))['redis_url'])"


def redis_cli(facts: Facts) -> str:
    """With the account that the mesh uses."""
    url = facts.url
    if url is None:
        return f"{_program()} -s {quote(paths.store_socket_path())}"
    if not url.startswith(("redis://", "rediss://")) or "@" not in url:
        return anybody(url)
    return f'{_program()} -u "{_where_from(facts)}"'


def anybody(url: str) -> str:
    """Without an account: that of somebody who may administer it is added by hand."""
    shown = redacted(url)
    if url.startswith("unix://"):
        return f"{_program()} -s {quote(urlsplit(shown).path)}"
    if url.startswith(("redis://", "rediss://")):
        return f"{_program()} -u {quote(shown)}"
    host, _, port = urlsplit(shown).netloc.split(",")[0].rpartition(":")
    return f"{_program()} -h {quote(host)} -p {quote(port)}"


def _program() -> str:
    return next((name for name in ("redis-cli", "valkey-cli") if shutil.which(name)), "redis-cli")


def _where_from(facts: Facts) -> str:
    """Where a shell gets the URL from, password and all."""
    if os.environ.get("AGENT_MESH_REDIS_URL"):
        return "$AGENT_MESH_REDIS_URL"
    if facts.settings is not None and not facts.settings.redis_url and facts.settings.redis_url_file:
        return f"$(cat {quote(os.path.expanduser(facts.settings.redis_url_file))})"
    return f"$({quote(sys.executable)} -c {quote(_FROM_FILE)} {quote(paths.config_file())})"
