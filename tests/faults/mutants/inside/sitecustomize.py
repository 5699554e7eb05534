"""Makes the daemon that is starting the mutant that `FAULT_MUTANT` names. Python loads this before anything else.

A mutant that does not fit the daemon any more ends it at once: otherwise it would be the daemon as it is.
"""

from __future__ import annotations

import os
import sys
import traceback

_is_daemon = "meshd" in sys.orig_argv
if os.environ.get("FAULT_MUTANT") and _is_daemon:
    try:
        sys.path.append(os.path.dirname(os.path.abspath(__file__)))
        import changes  # type: ignore[import-not-found]  # it stands beside this file

        changes.make(os.environ["FAULT_MUTANT"])
    except BaseException:
        traceback.print_exc()
        os._exit(70)
