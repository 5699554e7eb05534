"""The limit of open files, raised as far as the system lets a process."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from meshd.system import limits

RAISED = """
import resource, sys
from meshd.system.limits import raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize("hard", [64, 300])
def test_the_soft_limit_goes_up_to_the_hard_one(hard: int) -> None:
    done = subprocess.run([sys.executable, "-c", RAISED, str(hard)], capture_output=True, text=True, check=True)
    assert done.stdout == f"({hard}, {hard})\n"


def test_a_system_that_names_no_limit_and_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS."""
    set_to: list[int] = []

    def setrlimit(what: int, to: tuple[int, int]) -> None:
        if to[0] > 10_240:
            raise ValueError("current limit exceeds maximum limit")
        set_to.append(to[0])

    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    limits.raise_file_limit()
    assert set_to == [10_240]
