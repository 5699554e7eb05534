"""`meshctl path`: where a file is. Loads no more than it needs, for scripts ask it again and again."""

from meshctl.client import quote_ascii, write
from meshd import paths

PLAIN = {
    "socket": paths.socket_path,
    "cache": paths.cache_dir,
    "state": paths.state_dir,
    "config": paths.config_file,
    "log": paths.daemon_log,
}
NAMED = {"notify": paths.notify_log, "pending": paths.journal}


def run(what: str, name: str, *, as_json: bool) -> int:
    """Print the path that is called so, or all that need no name. The exit code. Raises `UsageError`."""
    if not is_known(what, name):
        _refuse(what, name)
    if what in NAMED:
        found = {what: NAMED[what](name)}
    else:
        found = {key: function() for key, function in PLAIN.items() if what in ("", key)}
    if as_json:
        pairs = (f"{quote_ascii(key)}: {quote_ascii(value)}" for key, value in found.items())
        write(1, f"{{{', '.join(pairs)}}}\n")
    elif what:
        write(1, f"{found[what]}\n")
    else:
        write(1, "".join(f"{key:7} {value}\n" for key, value in found.items()))
    return 0


def is_known(what: str, name: str) -> bool:
    """Whether there is a path called so. The name's rule is meshd.core.names', which loads `re`."""
    if what in NAMED:
        letters = name.replace("_", "a").replace("-", "a")
        return len(name) <= 64 and letters.isascii() and letters.isalnum()
    return not what or what in PLAIN


def _refuse(what: str, name: str) -> None:
    from meshd.core.names import check_name
    from meshd.errors import UsageError

    if what in NAMED:
        check_name(name)
    raise UsageError(f"no path named {what!a}", f"one of: {', '.join([*PLAIN, *NAMED])}")
