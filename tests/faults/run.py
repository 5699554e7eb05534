"""One run of a scenario, and the row that it comes to."""

from __future__ import annotations

import threading
import time
import traceback
from pathlib import Path

import msgspec

from tests.faults import checker
from tests.faults.checker import judge
from tests.faults.history import load
from tests.faults.scenario import Scenario, Stage


class Row(msgspec.Struct):
    """A run. `lost` counts acknowledged messages that nobody was handed, `recovery` is the worst round in seconds."""

    name: str
    store: str
    seed: int
    rounds: int
    acknowledged: int = 0
    unknown: int = 0
    refused: int = 0
    lost: int = 0
    told: int = 0
    twice: int = 0
    order: int = 0
    recovery: float | None = None
    seconds: float = 0.0
    violations: list[str] = []
    notes: list[str] = []  # what the hints say otherwise
    troubles: list[str] = []
    folder: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.violations or self.troubles)

    def __str__(self) -> str:
        recovery = "" if self.recovery is None else f", recovery {self.recovery:.1f} s"
        state = "FAILED" if self.failed else "ok    "
        head = (
            f"{state} {self.name} [{self.store}, {self.rounds} rounds, seed {self.seed}]: "
            f"{self.acknowledged} acknowledged, {self.lost} lost, {self.told} told, {self.twice} twice, "
            f"{self.order} out of order, {self.unknown} unknown{recovery}, {self.seconds:.0f} s"
        )
        found = [f"    {line}" for line in (*self.violations, *self.troubles)]
        found += [f"    (hint) {line}" for line in self.notes]
        kept = [f"    kept in {self.folder}"] if self.failed and self.folder else []
        return "\n".join([head, *found, *kept])


def perform(scenario: Scenario, kind: str, rounds: int, seed: int, folder: Path) -> Row:
    """Run it once. Whatever fails in it is in the row."""
    stage = Stage(folder, kind, seed, rounds)
    row = Row(scenario.name, kind, seed, rounds, folder=str(folder))
    begin = time.monotonic()
    whole = False
    try:
        scenario.run(stage)
        whole = True
    except Exception as error:  # what was handed out up to here is judged all the same
        stage.troubles.append(f"{type(error).__name__}: {error}")
        (folder / "traceback.txt").write_text(traceback.format_exc())
    row.seconds = time.monotonic() - begin
    row.troubles = stage.troubles
    row.recovery = max(stage.recovered, default=None)
    if stage.history.exists():
        _judge(row, stage.history, scenario, whole=whole)
    elif not stage.troubles:
        row.troubles.append("there is no history")
    strays = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    row.troubles += [f"a thread is left: {name}" for name in strays if not name.startswith("Thread-")]
    return row


def _judge(row: Row, history: Path, scenario: Scenario, *, whole: bool) -> None:
    """A history that is not `whole` was not read to its end: what is missing in it may still be there."""
    verdict = judge(load(history), kept=scenario.kept)
    row.acknowledged, row.unknown, row.refused = verdict.acknowledged, verdict.unknown, verdict.refused
    row.lost, row.told = verdict.lost, verdict.told
    row.twice, row.order = verdict.count(checker.TWICE), verdict.count(checker.ORDER)
    allowed = {checker.TWICE} if scenario.again else set()
    allowed |= set() if whole else set(checker.OF_THE_END)
    row.violations = [str(finding) for finding in verdict.violations if finding.kind not in allowed]
    row.notes = [str(finding) for finding in verdict.findings if str(finding) not in row.violations]
    if not whole:
        row.lost = 0
        row.notes = [note for note in row.notes if not note.startswith(checker.OF_THE_END)]
