"""Where the files are. Standard library only on the path that the client takes.

The client imports this module in every process, so `socket_path` touches nothing but `os`;
the other folders are platformdirs', which is asked where the answer is not plain.
"""

import os
import sys

APP = "agent-mesh"
# sun_path holds 107 bytes on Linux and 103 on macOS, with room left for a suffix of ours.
SOCKET_PATH_BUDGET = 100


def socket_path() -> str:
    """The control socket's absolute path, at most 100 bytes.

    `AGENT_MESH_SOCKET`, else `$XDG_RUNTIME_DIR/agent-mesh/meshd.sock`, else the same below
    `/run/user/<uid>`, else a folder in the user's home, which no cleaner of /tmp sweeps away. A path
    over the budget is replaced by one in /tmp whose name is the hash of the long one.
    """
    return _within_budget(wanted_socket_path())


def wanted_socket_path() -> str:
    """The same, however long it is."""
    explicit = os.environ.get("AGENT_MESH_SOCKET")
    return os.path.abspath(explicit) if explicit else os.path.join(_runtime_dir(), "meshd.sock")


def _runtime_dir() -> str:
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    if xdg and os.path.isabs(xdg) and _is_private(xdg, missing_ok=True):
        return os.path.join(xdg, APP)
    if sys.platform == "linux":
        run_user = f"/run/user/{os.getuid()}"
        if _is_private(run_user, missing_ok=False):
            return os.path.join(run_user, APP)
    return os.path.join(os.path.expanduser("~"), ".local", "state", APP, "run")


def _is_private(path: str, *, missing_ok: bool) -> bool:
    """Whether nobody but this user can put files into the folder."""
    try:
        status = os.stat(path)
    except OSError:
        return missing_ok
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _within_budget(path: str) -> str:
    if len(os.fsencode(path)) <= SOCKET_PATH_BUDGET:
        return path
    import hashlib

    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    # Made private before it is used, and its name tells nothing: meshd.disk.files.private_dir.
    return f"/tmp/{APP}-{os.getuid()}/{digest}.sock"  # noqa: S108


def may_start() -> bool:
    """Whether the environment lets a command start the daemon."""
    return os.environ.get("AGENT_MESH_NO_AUTOSTART", "").lower() not in ("1", "true", "yes", "on")


def store_socket_path() -> str:
    """The embedded store's private socket, beside the control socket."""
    return _within_budget(socket_path().removesuffix(".sock") + ".store")


def gateway_socket_path() -> str:
    """Where MCP sessions are served, beside the control socket."""
    return _within_budget(socket_path().removesuffix(".sock") + ".mcp")


def sent_log() -> str:
    """Where is kept what was sent lately, beside the control socket, without the endings of its files."""
    return socket_path().removesuffix(".sock")


def cache_dir() -> str:
    plain = _plain("XDG_CACHE_HOME", ".cache")
    if plain is not None:
        return plain
    import platformdirs

    return platformdirs.user_cache_dir(APP, appauthor=False)


def legacy_dir() -> str:
    """Where agent-mesh 0.1 has its files, on every system and whatever XDG_CACHE_HOME says."""
    return os.path.join(os.path.expanduser("~"), ".cache", APP)


def state_dir() -> str:
    plain = _plain("XDG_STATE_HOME", ".local/state")
    if plain is not None:
        return plain
    import platformdirs

    return platformdirs.user_state_dir(APP, appauthor=False)


def config_file() -> str:
    folder = _plain("XDG_CONFIG_HOME", ".config")
    if folder is None:
        import platformdirs

        folder = platformdirs.user_config_dir(APP, appauthor=False)
    return os.path.join(folder, "config.toml")


def _plain(variable: str, below_home: str) -> "str | None":
    """Our folder in the one that the variable names, or else the home has, where nothing else is to be minded.

    What platformdirs says, too; but loading it takes longer than all the rest of `meshctl path`.
    """
    if sys.platform != "linux" or "ANDROID_DATA" in os.environ:
        return None
    named, home = os.environ.get(variable, ""), os.environ.get("HOME", "")
    if os.path.isabs(named):
        return os.path.join(named, APP)
    return f"{home.rstrip('/')}/{below_home}/{APP}" if os.path.isabs(home) else None


def notify_log(name: str) -> str:
    return os.path.join(cache_dir(), f"notify-{name}.log")


def journal(name: str) -> str:
    """The agent's journal: its inbox and its pending ledger in one file, so that they cannot disagree."""
    return os.path.join(state_dir(), "agents", f"{name}.journal")


def daemon_log() -> str:
    return os.path.join(state_dir(), "meshd.log")


def store_dir() -> str:
    return os.path.join(state_dir(), "store")


def watch_cursor(name: str) -> str:
    """Where the last `watch` of the name stopped."""
    return os.path.join(state_dir(), "agents", f"{name}.watch")
