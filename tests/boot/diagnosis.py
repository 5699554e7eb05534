"""doctor in a session of the machine, and its commands, pasted."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.boot.machine import NONE, Shell
from tests.doctor.checkup import Found, bad


def checkup(session: Shell, variables: Mapping[str, str] = NONE, *, before: str = ":") -> list[Found]:
    """All findings, once what stands `before` was run in the same shell."""
    done = session.run(f"{before}\nexec meshctl doctor --json", variables=variables)
    assert done.err == ""
    findings: list[Found] = json.loads(done.out)["findings"]
    assert done.code == (1 if any(found["level"] == "error" for found in findings) else 0)
    return findings


def paste(session: Shell, found: Found, variables: Mapping[str, str] = NONE) -> str:
    """Run the finding's own command. What it says."""
    done = session.run(found["next"], variables=variables)
    assert done.code == 0, f"{found}: {done}"
    return done.out + done.err


def assert_well(session: Shell) -> None:
    """In a shell as after a login."""
    wrong = bad(checkup(session))
    assert not wrong, wrong
    assert session.sh("meshctl doctor").endswith("\nall is well\n")
