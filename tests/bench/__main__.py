"""`python -m tests.bench [NAME …]`: what it costs, each figure beside a yardstick measured in the same run.

Ratios hold on a shared machine, single times do not. Nothing here passes or fails: these are numbers to read.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench import client, delivery, footprint, sessions, wake

SECTIONS = {
    "client": client.whole_process,
    "start": client.daemon_start,
    "latency": delivery.latency,
    "throughput": delivery.throughput,
    "pipelined": delivery.pipelined,
    "footprint": footprint.footprint,
    "sessions": sessions.sessions,
    "wake": wake.wake,
}


def main() -> int:
    names = sys.argv[1:] or list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(f"no section {unknown[0]}; one of: {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    for name in names:
        with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
            print(f"\n## {name}")
            SECTIONS[name](Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
