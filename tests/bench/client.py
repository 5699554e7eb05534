"""What a user's shell pays: a whole `meshctl` process, and a daemon from nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from tests.bench.figures import milliseconds, row, scaled
from tests.helper import a_home

ROUNDS = 100
STARTS = 7


def _timed(command: list[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def whole_process(folder: Path, share: float) -> None:
    """`meshctl send` against the bare interpreter, in turn."""
    script = os.path.join(sysconfig.get_path("scripts"), "meshctl")
    with a_home(folder / "home") as home:
        home.meshctl("register", "bob")
        # Started as a user starts them: without the warnings that the tests turn on.
        env = {k: v for k, v in home.env.items() if not k.startswith("PYTHON")}
        bare, send, site = [], [], []
        for _ in range(scaled(ROUNDS, share)):
            bare.append(_timed([sys.executable, "-I", "-S", "-c", "pass"], env))
            send.append(_timed([script, "send", "bob", "hello", "--from", "alice"], env))
            site.append(_timed([sys.executable, "-c", "pass"], env))
    row("python -I -S -c pass", milliseconds(bare))
    row("python -c pass (with site)", milliseconds(site))
    row("meshctl send", milliseconds(send))
    row("ratio to the bare interpreter, min", f"{min(send) / min(bare):.2f}", "at most 1.6")
    row("ratio to the bare interpreter, median", f"{statistics.median(send) / statistics.median(bare):.2f}")


def daemon_start(folder: Path, share: float) -> None:
    """From an empty home to the first answer from the store."""
    times = []
    for k in range(scaled(STARTS, share)):
        with a_home(folder / f"home{k}") as home:
            started = time.perf_counter()
            home.meshctl("up")
            times.append(time.perf_counter() - started)
    row("meshctl up in an empty home, store included", milliseconds(times), "under 500 ms")
