"""Faults of our own in the daemon, each of which a scenario must find: proof that the suite sees what it is for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from tests.faults import checker


class Mutant(NamedTuple):
    """Found by this scenario, with so many rounds, as this kind of violation."""

    scenario: str
    rounds: int
    found_as: str


MUTANTS: dict[str, Mutant] = {
    "no dedupe": Mutant("net: reply dropped, request delivered", 3, checker.TWICE),
    "no turns": Mutant("net: cut before the request", 4, checker.ORDER),
    "unknown as down": Mutant("net: replies dropped for longer than a send waits", 2, checker.REFUSED),
    "no mail in the journal": Mutant("kill -9 daemon", 4, checker.SILENT),
    "no reads in the journal": Mutant("kill -9 daemon", 4, checker.TWICE),
    "read when handed out": Mutant("reader killed before it confirms", 4, checker.TAKEN),
    "no count of losses": Mutant("FLUSHALL while the receiver is away", 1, checker.SILENT),
    "losses told for ever": Mutant("FLUSHALL while the receiver is away", 1, checker.FALSE),
    "no lease asked": Mutant("takeover from a stopped daemon, inbox waiting", 3, checker.TWICE),
}


def variables(name: str) -> dict[str, str]:
    """What makes every daemon below a process this mutant; nothing if there is no name."""
    if not name:
        return {}
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent / "inside"), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "FAULT_MUTANT": name}
