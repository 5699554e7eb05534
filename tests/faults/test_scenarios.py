"""The fault suite itself runs: scenarios from begin to end, and a daemon with a fault of ours that is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import plan
from tests.faults.history import Intends, Outcome, Recorder
from tests.faults.mutants import MUTANTS
from tests.faults.plan import Job, carry_out, long_form, short_form, table
from tests.faults.run import Row, perform
from tests.faults.scenario import SCENARIOS, Scenario, Stage

pytestmark = pytest.mark.timeout(600)  # for what hangs alone


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net: cut in mid-reply", "redis"),
        ("kill -9 daemon", "valkey"),
        ("SIGTERM daemon and start", "embedded"),
        ("reader killed before it confirms", "redis"),
    ],
)
def test_one_round(name: str, kind: str, tmp_path: Path) -> None:
    """Mail flowed, was judged, and nothing is wrong with the run itself."""
    row = perform(SCENARIOS[name], kind, 1, 1, tmp_path)
    assert row.troubles == []
    assert row.violations == []
    assert row.acknowledged > 50
    assert row.recovery is not None


def test_a_mutant_is_found_in_a_process_of_its_own(tmp_path: Path) -> None:
    """By the scenario that is named for it."""
    name = "no reads in the journal"
    mutant = MUTANTS[name]
    [row] = carry_out([Job(mutant.scenario, "redis", 2, 1, name)], tmp_path, 1)
    assert row.troubles == []
    assert [note for note in row.notes if note.startswith(f"found: {mutant.found_as}: ")]


def test_a_mutant_that_is_none_does_not_start(tmp_path: Path) -> None:
    """Otherwise a misspelt one would be the daemon as it is, and not found."""
    command = [sys.executable, "-m", "meshd", "--version"]
    done = subprocess.run(command, env=plan.environment("no such mutant"), capture_output=True, text=True)
    assert done.returncode == 70
    assert "KeyError: 'no such mutant'" in done.stderr


def test_every_mutant_has_a_scenario() -> None:
    assert {mutant.scenario for mutant in MUTANTS.values()} <= set(SCENARIOS)


def test_what_goes_wrong_in_a_scenario_is_in_its_row(tmp_path: Path) -> None:
    """Nothing is said of what is missing in a history that was not read to its end."""

    def run(stage: Stage) -> None:
        history = Recorder(stage.history)
        history.write(Intends("alice", "bob", "1", 1), Outcome("1", "sent"))
        history.close()
        raise ValueError("as it was meant")

    row = perform(Scenario("an error", run, 1, 0, 0, ["redis"], kept=True), "redis", 1, 1, tmp_path)
    assert row.troubles == ["ValueError: as it was meant"]
    assert (row.acknowledged, row.lost, row.violations, row.failed) == (1, 0, [], True)


def test_the_forms_have_what_they_are_to_have() -> None:
    """The long one each scenario with each of its stores; the short one some of all kinds, each once."""
    long, short = long_form(1), short_form(1)
    assert {(job.name, job.kind) for job in long} == {(one.name, k) for one in SCENARIOS.values() for k in one.stores}
    assert len({job.name for job in short}) == len(short)
    assert {job.kind for job in short} == {"redis", "valkey", "embedded"}
    assert len({job.seed for job in long}) == len(long)


def test_the_table_has_a_line_for_each_run() -> None:
    rows = [Row("a | b", "redis", 1, 2), Row("c", "valkey", 1, 2, troubles=["it\n| hangs"], recovery=1.25)]
    lines = table(rows).splitlines()
    assert [line.count("|") for line in lines] == [12] * 4
    assert "1.2" in lines[3]
