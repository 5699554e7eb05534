"""Which runs there are, several at a time, each in a process of its own; and the table of what they came to."""

from __future__ import annotations

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.faults.mutants import MUTANTS, variables
from tests.faults.run import Row
from tests.faults.scenario import SCENARIOS
from tests.faults.scenarios import (  # noqa: F401  # each adds its scenarios to the list
    administration,
    certificates,
    clocks,
    damage,
    disks,
    mail,
    network,
    processes,
    rollback,
    sessions,
    soak,
    takeovers,
    topology,
)

_HANGS = 3600.0  # seconds, after which a run is ended
_TAIL = 400  # characters of what a run said that ended without a row


@dataclass(frozen=True)
class Job:
    """A run that is to be made. With a `mutant` it is to find that one."""

    name: str
    kind: str
    rounds: int
    seed: int
    mutant: str = ""

    def folder(self, keep: Path) -> Path:
        words = re.sub(r"[^A-Za-z0-9]+", "-", f"{self.name} {self.mutant}").strip("-")
        return keep / f"{words}-{self.kind}-{self.seed}"


def short_form(seed: int) -> list[Job]:
    """Each on one kind of store, in turns."""
    chosen = [one for one in SCENARIOS.values() if one.short]
    return [Job(one.name, one.stores[n % len(one.stores)], one.short, seed + n) for n, one in enumerate(chosen)]


def long_form(seed: int) -> list[Job]:
    chosen = [(one, kind) for one in SCENARIOS.values() if one.long for kind in one.stores]
    return [Job(one.name, kind, one.long, seed + n) for n, (one, kind) in enumerate(chosen)]


def mutants(seed: int) -> list[Job]:
    return [
        Job(mutant.scenario, SCENARIOS[mutant.scenario].stores[0], mutant.rounds, seed + n, name)
        for n, (name, mutant) in enumerate(MUTANTS.items())
    ]


def environment(mutant: str) -> dict[str, str]:
    """What a run sees. With a mutant every daemon that it starts is that one."""
    return {**os.environ, **variables(mutant)}


class Runs:
    """Runs in processes of their own. Whoever ends this one ends them."""

    def __init__(self, keep: Path) -> None:
        self._keep = keep
        self._processes: set[subprocess.Popen[bytes]] = set()

    def end(self) -> None:
        """Each ends what it has started."""
        for process in list(self._processes):
            process.terminate()

    def make(self, job: Job) -> Row:
        folder = job.folder(self._keep)
        folder.mkdir(parents=True, exist_ok=True)
        answer, said = folder / "row.json", folder / "said.txt"
        command = [sys.executable, "-m", "tests.faults", job.name, "--store", job.kind, "--rounds", str(job.rounds)]
        command += ["--seed", str(job.seed), "--keep", str(folder), "--row", str(answer)]
        with open(said, "wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, start_new_session=True, env=environment(job.mutant)
            )
            self._processes.add(process)
            try:
                process.wait(_HANGS)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
            finally:
                self._processes.discard(process)
        try:
            row = msgspec.json.decode(answer.read_bytes(), type=Row)
        except FileNotFoundError:
            text = said.read_text(errors="replace")[-_TAIL:]
            row = Row(job.name, job.kind, job.seed, job.rounds, troubles=[f"no result: {text}"], folder=str(folder))
        row = _as_expected(job, row) if job.mutant else row
        if not row.failed:
            shutil.rmtree(folder, ignore_errors=True)
        return row


def carry_out(jobs: Sequence[Job], keep: Path, at_a_time: int) -> list[Row]:
    """Run them all, so many at a time, and say how each ended as it does."""
    rows: dict[Job, Row] = {}
    runs = Runs(keep)
    with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
        running = {pool.submit(runs.make, job): job for job in jobs}
        try:
            for done in concurrent.futures.as_completed(running):
                row = rows[running[done]] = done.result()
                print(row, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            runs.end()
            raise
    return [rows[job] for job in jobs]


def _as_expected(job: Job, row: Row) -> Row:
    """The row of a mutant: it fails if the mutant was not found, and is right if it was."""
    kind = MUTANTS[job.mutant].found_as
    found = [line for line in row.violations if line.startswith(f"{kind}:")]
    row.name = f"{job.name}, mutant: {job.mutant}"
    row.notes = [f"found: {line}" for line in found] + row.notes
    row.violations = []
    row.troubles = [] if found else [f"not found as {kind!r}", *row.troubles]
    return row


_COLUMNS = (
    *("fault", "store", "rounds", "acknowledged", "lost", "told", "violations", "twice", "order"),
    *("unknown", "worst recovery, s"),
)


def table(rows: Iterable[Row]) -> str:
    """As Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    for row in rows:
        other = [line for line in row.violations if "twice" not in line and "out of order" not in line]
        recovery = "–" if row.recovery is None else f"{row.recovery:.1f}"
        cells = [row.name, row.store, row.rounds, f"{row.acknowledged:,}", row.lost, row.told]
        cells += ["; ".join((*other, *row.troubles)) or 0, row.twice, row.order, row.unknown, recovery]
        lines.append(f"| {' | '.join(_in_a_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _in_a_cell(value: object) -> str:
    return " ".join(str(value).replace("|", "/").split())
