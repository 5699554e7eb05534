"""Building what is shipped, from the source tree, which is left as it is."""

from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# Everything that an installation has below its `share`.
SHARED = {
    "bash-completion/completions/agent-mesh",
    "bash-completion/completions/meshctl",
    "fish/vendor_completions.d/agent-mesh.fish",
    "fish/vendor_completions.d/meshctl.fish",
    "man/man1/agent-mesh.1",
    "man/man1/meshctl.1",
    "man/man5/agent-mesh.toml.5",
    "man/man8/meshd.8",
    "zsh/site-functions/_meshctl",
}


def part(name: str) -> Any:
    """A module of packaging/, which is no package: its name is another project's."""
    if str(ROOT / "packaging") not in sys.path:
        sys.path.append(str(ROOT / "packaging"))
    return importlib.import_module(name)


def run(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a program that must succeed."""
    done = subprocess.run(
        command, cwd=cwd, env=None if env is None else os.environ | env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A folder that `build` has filled: once, however many processes run the tests; the others wait for it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = Path(f"{folder}.unfinished")
            unfinished.mkdir()
            build(unfinished)
            unfinished.rename(folder)
    return folder


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
