"""Memory and CPU of a daemon whose agents have nothing to do."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.bench.figures import row, scaled
from tests.helper import a_home, wait_until

OBSERVED = 30.0  # seconds; twice the time a reader waits for the store


def resident_of(pid: int) -> float:
    """KiB."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def cpu_of(pid: int) -> float:
    """Seconds of user and system time."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def footprint(folder: Path, share: float) -> None:
    """With 1, 100 and 1,000 idle agents."""
    observed = OBSERVED * share
    with a_home(folder / "home") as home:
        daemon = home.start()
        hosted, one = 0, 0.0
        with home.rpc() as rpc:
            for wanted in (1, scaled(100, share), scaled(1000, share)):
                for k in range(hosted, wanted):
                    rpc.call("register", name=f"agent{k}")
                hosted = wanted
                wait_until(
                    lambda: all(agent["state"] == "receiving" for agent in rpc.call("status")["agents"]),
                    "all agents receive",
                    60,
                )
                before = cpu_of(daemon.pid)
                time.sleep(observed)  # a benchmark's observation window, not a synchronisation
                used = (cpu_of(daemon.pid) - before) / observed
                size = resident_of(daemon.pid)
                one = one or size
                each = f", {(size - one) / (wanted - 1):.1f} KiB for each more" if wanted > 1 else ""
                aim = {1: "under 45 MB", 100: "under 1 % of a core", 1000: "under 60 KB for each more"}.get(wanted, "")
                row(f"{wanted} idle agents", f"{size / 1024:.1f} MiB{each}, {100 * used:.2f} % of a core", aim)
