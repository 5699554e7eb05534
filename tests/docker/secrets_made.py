"""docker/setup, run on a copy of the folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

DOCKER = Path(__file__).parents[2] / "docker"


def copied(folder: Path) -> Path:
    shutil.copytree(DOCKER, folder, ignore=shutil.ignore_patterns("secrets"))
    return folder


def setup(folder: Path, **variables: str) -> Path:
    """Run `setup` in a copy of docker/; the folder of the secrets. An earlier copy is used again."""
    if not folder.exists():
        copied(folder)
    done = subprocess.run([folder / "setup"], env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "secrets"
