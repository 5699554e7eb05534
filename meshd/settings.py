"""The configuration: one frozen value, read once from the file and the environment.

A key of `config.toml` is a variable's name in lower case without `AGENT_MESH_`; a variable wins. An unknown
key is an error that names it, because a typo that is ignored is a setting that silently does nothing.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from meshd import paths
from meshd.core.names import is_name
from meshd.errors import ConfigError

HARD_MESSAGE_LIMIT = 1 << 20
_PREFIX = re.compile(r"[A-Za-z0-9_.:{}-]{1,64}")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a daemon runs with. Sizes in bytes."""

    redis_url: Annotated[
        str | None,
        Meta(
            description="the store: redis://, rediss://, unix://, redis+sentinel://H1:26379,H2:26379/SERVICE/0 or "
            "redis+cluster://H1:6379; without it the daemon brings its own"
        ),
    ] = None
    redis_url_file: Annotated[
        str | None, Meta(description="a file that holds the URL, which may hold a password; not used beside redis_url")
    ] = None
    prefix: Annotated[
        str, Meta(description="the first part of every key in the store; on a Cluster {mesh}, in braces")
    ] = "mesh"
    gate_enforce: Annotated[
        bool, Meta(description="deny messages that are over the limit, which else are only audited")
    ] = False
    gate_limit: Annotated[int, Meta(description="messages in 10 seconds from one sender to one target")] = 40
    escalate_to: Annotated[
        str, Meta(description="the agent that is told when four re-pings have brought no answer")
    ] = "watchdog"
    max_message: Annotated[int, Meta(description="bytes of one message, at most 1048576")] = 64 * 1024
    name: Annotated[str | None, Meta(description="who this shell or session is; without it cli")] = None
    log_level: Annotated[str, Meta(description="what the daemon's log tells: debug, info, warning or error")] = "info"

    @property
    def url(self) -> str | None:
        """The store's URL, or None for the embedded store. Reads `redis_url_file` if that is what is set."""
        if self.redis_url or not self.redis_url_file:
            return self.redis_url or None
        path = os.path.expanduser(self.redis_url_file)
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the store's URL from {path}: {error}",
                "write the URL into that file, readable by this user, or unset redis_url_file",
            ) from None
        if not text:
            raise ConfigError(f"{path} is empty", "write the store's URL into it, or unset redis_url_file")
        return text


# In the environment only: read by the client, which must not pay for a configuration file, or by another process.
ENVIRONMENT_ONLY = {
    "socket": "the control socket's path",
    "no_autostart": "1: no command starts the daemon",
    "http_token": "meshctl serve --http: what every request must show",
    "http_token_file": "a file that holds that token",
    "http_hosts": "meshctl serve --http: further host names by which it may be asked for, separated by commas",
}
# Changed only by a restart: the connections and every key hang on them.
RESTART_ONLY = ("redis_url", "redis_url_file", "prefix")
LOG_LEVELS = ("debug", "info", "warning", "error")


def load(environ: Mapping[str, str] | None = None, file: str | None = None) -> Settings:
    """Read the configuration file and the environment. Raises `ConfigError` naming the key and the source."""
    environ = os.environ if environ is None else environ
    file = paths.config_file() if file is None else file
    values = _from_file(file)
    if environ.get("AGENT_MESH_REDIS_URL_FILE"):
        values.pop("redis_url", None)  # which would go first
    if environ.get("AGENT_MESH_REDIS_URL") == "":  # back to the embedded store
        values.pop("redis_url", None)
        values.pop("redis_url_file", None)
    sources = dict.fromkeys(values, file)
    for key in Settings.__struct_fields__:
        variable = f"AGENT_MESH_{key.upper()}"
        if environ.get(variable) and key != "name":  # whoever starts the daemon is not whoever calls it
            values[key] = environ[variable]
            sources[key] = variable
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        key = _key_of(str(error))
        raise ConfigError(
            f"{sources.get(key, file)}: {key}: {error}".replace(str(values.get("redis_url")), "<url>"),
            f"give {key} a value of the right type",
        ) from None
    return _checked(settings, sources)


def _from_file(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            values = tomllib.load(stream)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}", "mend the file, or move it away to run with the defaults") from None
    for key in values:
        if key not in Settings.__struct_fields__:
            if key in ENVIRONMENT_ONLY:
                raise ConfigError(
                    f"{file}: {key!r} cannot be set here", f"set the variable AGENT_MESH_{key.upper()} instead"
                )
            near = difflib.get_close_matches(key, Settings.__struct_fields__, 1)
            raise ConfigError(
                f"{file}: unknown key {key!r}",
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(Settings.__struct_fields__)}",
            )
    return values


def _key_of(error: str) -> str:
    found = re.search(r"\$\.(\w+)", error)
    return found.group(1) if found else "configuration"


def _checked(settings: Settings, sources: Mapping[str, str]) -> Settings:
    def refuse(key: str, why: str) -> ConfigError:
        return ConfigError(f"{sources.get(key, 'default')}: {key}: {why}", f"correct {key} and start again")

    where = os.path.expanduser(settings.redis_url_file or "/")
    if not os.path.isabs(where) and sources["redis_url_file"] != "AGENT_MESH_REDIS_URL_FILE":
        raise refuse("redis_url_file", "give the whole path, from / or ~ on: the daemon runs in no folder of yours")
    url = settings.url
    cluster = bool(url and url.startswith(("redis+cluster://", "rediss+cluster://")))
    if cluster and "prefix" not in sources:
        # One hash tag puts every key into one slot, so that one script may touch them all.
        settings = msgspec.structs.replace(settings, prefix="{mesh}")
    if cluster and not re.search(r"\{[^{}]+\}", settings.prefix):
        raise refuse("prefix", "a Cluster needs a hash tag in the prefix, as in {mesh}")
    if not _PREFIX.fullmatch(settings.prefix):
        raise refuse("prefix", "1 to 64 characters of A-Z a-z 0-9 _ . : - { }")
    if not 1 <= settings.max_message <= HARD_MESSAGE_LIMIT:
        raise refuse("max_message", f"from 1 to {HARD_MESSAGE_LIMIT} bytes, less its quoting in a call")
    if settings.gate_limit < 1:
        raise refuse("gate_limit", "1 or more")
    if settings.name is not None and not is_name(settings.name):
        raise refuse("name", "not an agent's name")
    if not is_name(settings.escalate_to):
        raise refuse("escalate_to", "not an agent's name")
    if settings.log_level not in LOG_LEVELS:
        raise refuse("log_level", f"one of {', '.join(LOG_LEVELS)}")
    return settings
