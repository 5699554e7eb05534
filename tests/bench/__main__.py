"""`python -m tests.bench [--quick] [NAME …]`: what it costs, each figure beside a yardstick measured in the same run.

Ratios hold on a shared machine, single times do not. Nothing here passes or fails: these are numbers to read. With
`--quick` there are few rounds: that tells whether it still runs, and not what it costs. It takes the test tools, which
tests/run installs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench import backlog, client, delivery, footprint, growth, sessions, wake

QUICK = 0.02  # of the rounds
# Each takes a folder of its own, and the share of its rounds that it is to make.
SECTIONS = {
    "client": client.whole_process,
    "start": client.daemon_start,
    "latency": delivery.latency,
    "throughput": delivery.throughput,
    "pipelined": delivery.pipelined,
    "footprint": footprint.footprint,
    "growth": growth.growth,
    "backlog": backlog.backlog,
    "sessions": sessions.sessions,
    "wake": wake.wake,
}


def main() -> int:
    arguments = sys.argv[1:]
    share = QUICK if "--quick" in arguments else 1.0
    names = [argument for argument in arguments if argument != "--quick"] or list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(f"no section {unknown[0]}; one of: {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    for name in names:
        with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
            print(f"\n## {name}")
            SECTIONS[name](Path(folder), share)
    return 0


if __name__ == "__main__":
    sys.exit(main())
