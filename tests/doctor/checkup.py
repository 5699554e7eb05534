"""doctor run as a user runs it, and the command that it names pasted into a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.helper import Home

Found = dict[str, Any]
BIN = os.path.dirname(sys.executable)


def checkup(home: Home, *, before: str = ":", through: Sequence[str] = (), **variables: str) -> list[Found]:
    """All findings, once what stands `before` was run in the same shell. Fails if doctor breaks its own rules."""
    script = f"{{ {before}\n}} >/dev/null 2>&1 </dev/null; exec meshctl doctor --json"
    environment = home.env | variables | {"PATH": f"{BIN}:{home.env['PATH']}"}
    done = subprocess.run([*through, "sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == "", done.stderr
    said = json.loads(done.stdout)
    findings: list[Found] = said["findings"]
    errors = [found for found in findings if found["level"] == "error"]
    assert (done.returncode, said["ok"]) == (1 if errors else 0, not errors)
    for found in findings:
        assert set(found) == {"level", "area", "what", "next"}
        assert "\n" not in found["what"] + found["next"]
        assert found["level"] == "ok" or found["next"], f"no command: {found}"
    return findings


def is_slow(found: Found) -> bool:
    """A warning that this machine is busy, which says nothing of what is tested."""
    return found["level"] == "warning" and ("a sync to the disk of " in found["what"] or "is slow: a " in found["what"])


def bad(findings: Sequence[Found]) -> list[str]:
    wrong = [found for found in findings if found["level"] in ("warning", "error") and not is_slow(found)]
    return [f"{found['level']}: {found['what']} -> {found['next']}" for found in wrong]


def named(findings: Sequence[Found], words: str, level: str = "error") -> Found:
    """The one finding with these words."""
    found = [finding for finding in findings if words in finding["what"]]
    assert len(found) == 1, f"{words!r} is not said once: {bad(findings)}"
    assert found[0]["level"] == level, found[0]
    return found[0]


def cured(home: Home, found: Found, *, through: Sequence[str] = (), **variables: str) -> list[Found]:
    """Run the command of the finding; it must not be there any more. What is left."""
    after = checkup(home, before=found["next"], through=through, **variables)
    assert found["what"][:40] not in [finding["what"][:40] for finding in after], bad(after)
    return after
