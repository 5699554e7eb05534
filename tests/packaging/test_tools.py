"""The installers of programs, as they are today: each makes an environment of its own and links the programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshd import __version__
from tests.packaging.building import ROOT, files_below, run

pytestmark = pytest.mark.timeout(600)  # pip downloads
PROGRAMS = {"agent-mesh", "meshctl", "meshd"}


@pytest.mark.parametrize("installer", [["pipx", "install"], ["uv", "tool", "install"]], ids=" ".join)
def test_it_is_installed_from_the_source_tree(installer: list[str], tmp_path: Path) -> None:
    tool, *arguments = installer
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv" / "bin" / "python", "-m", "pip", "install", "-q", tool)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIPX_", "UV_", "XDG_"))}
    env |= {"HOME": str(tmp_path), "UV_PYTHON": sys.executable, "PIPX_DEFAULT_PYTHON": sys.executable}
    program = tmp_path / "venv" / "bin" / tool
    done = subprocess.run([program, *arguments, ROOT], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    made = tmp_path / ".local" / "bin"
    assert files_below(made) >= PROGRAMS
    assert run(made / "meshctl", "version", cwd=tmp_path) == f"agent-mesh {__version__}\n"
    if tool == "pipx":
        assert files_below(tmp_path / ".local/share/man") == {
            "man1/agent-mesh.1",
            "man1/meshctl.1",
            "man5/agent-mesh.toml.5",
            "man8/meshd.8",
        }
    shutil.rmtree(tmp_path)  # hundreds of MiB
