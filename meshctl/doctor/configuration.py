"""The configuration: can it be read, and is it what the daemon runs with."""

from __future__ import annotations

import os
from collections.abc import Iterator

from meshctl import skew
from meshctl.doctor.facts import Facts
from meshctl.doctor.finding import Finding, quote
from meshd import paths
from meshd.errors import ConfigError
from meshd.store.redaction import redacted

AREA = "configuration"


def check(facts: Facts) -> Iterator[Finding]:
    found, error = facts.settings, facts.bad_settings
    if error is not None or found is None:
        assert error is not None
        yield Finding("error", AREA, error.message, _corrected(error))
        return
    shown = redacted(facts.url) if facts.url else "embedded"
    yield Finding("ok", AREA, f"configuration: store {shown}, prefix {found.prefix}")
    if facts.status is None:
        return
    runs_with = {"store": facts.status["store"]["where"], "prefix": facts.status["prefix"]}
    for what, here in (("store", shown), ("prefix", found.prefix)):
        if runs_with[what] != here:
            yield Finding(
                "warning",
                AREA,
                f"the daemon runs with the {what} {runs_with[what]}, and this shell's configuration says {here}",
                _take_over(facts, "redis_url" if what == "store" else what),
            )


def _corrected(error: ConfigError) -> str:
    """What is wrong stands behind its source: the file, or a variable. Only its owner knows what is right."""
    file, source = paths.config_file(), error.message.partition(": ")[0]
    if source == file:
        return f"${{EDITOR:-vi}} {quote(file)}  # {error.hint}"
    return f"unset {source}  # or {error.hint}" if source in os.environ else error.hint


def _take_over(facts: Facts, key: str) -> str:
    """A variable of this shell reaches a daemon that this shell starts, but not a service: that reads the file."""
    command = skew.restart(facts.managed_by)
    variable = f"AGENT_MESH_{key.upper()}"
    if facts.managed_by not in ("systemd", "launchd") or not os.environ.get(variable):
        return command
    file = quote(paths.config_file())
    return (
        f'mkdir -p {quote(os.path.dirname(paths.config_file()))} && (umask 077; echo "{key} = \\"${variable}\\"" '
        f">> {file}) && {command}"
    )
