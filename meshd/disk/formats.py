"""Which format a state file has: every one of them says it, so that an older program leaves a newer file alone."""

from __future__ import annotations

import msgspec

from meshd.errors import ConfigError


class _Format(msgspec.Struct):
    format: int = 1  # of a file from before there were numbers


def refuse_newer(path: str, data: bytes, known: int) -> None:
    """Raises `ConfigError` if the JSON object in the file says that it is of a newer format, whatever else is in it."""
    try:
        found = msgspec.json.decode(data, type=_Format).format
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return  # damaged, which is another matter
    if found > known:
        raise ConfigError(
            f"{path} was written by a newer agent-mesh (format {found}, known is {known})",
            "upgrade agent-mesh on this machine; the file was not touched",
        )
