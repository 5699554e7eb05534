"""`meshctl version`: ours, not the daemon's."""

import sys

from meshctl.client import quote_ascii, write
from meshd import __version__


def run(*, as_json: bool) -> int:
    """Print it. The exit code."""
    python = ".".join(map(str, sys.version_info[:3]))
    if as_json:
        write(1, f'{{"version": {quote_ascii(__version__)}, "python": {quote_ascii(python)}}}\n')
    else:
        write(1, f"agent-mesh {__version__}\n")
    return 0
