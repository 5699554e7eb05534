"""The wheel and the sdist: what is in them, and that they install."""

from __future__ import annotations

import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd import __version__
from tests.packaging.building import ROOT, SHARED, files_below, run

pytestmark = pytest.mark.timeout(600)  # pip downloads


class Built:
    """A wheel and an sdist of the source tree, and one more wheel out of the sdist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run(sys.executable, "-m", "venv", folder / "venv")
        self.python = folder / "venv" / "bin" / "python"
        run(self.python, "-m", "pip", "install", "-q", "hatchling", "msgspec")
        run(self.python, "-m", "hatchling", "build", "-d", folder / "first")
        self.sdist = folder / "first" / f"agent_mesh-{__version__}.tar.gz"
        self.wheel = folder / "first" / f"agent_mesh-{__version__}-py3-none-any.whl"
        with tarfile.open(self.sdist) as archive:
            archive.extractall(folder, filter="data")
        self.unpacked = folder / f"agent_mesh-{__version__}"
        run(self.python, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "second", cwd=self.unpacked)
        self.second = folder / "second" / self.wheel.name


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    before = source_tree()
    yield Built(tmp_path_factory.mktemp("built"))
    assert source_tree() == before, "a build has left something in the source tree"


def source_tree() -> set[str]:
    """What a build could add to."""
    below = {f"{folder}/{name}" for folder in ("packaging", "docker") for name in sources(ROOT / folder)}
    return {*(path.name for path in ROOT.iterdir() if not path.name.startswith(".")), *below}


def sources(folder: Path) -> set[str]:
    """Its files, but for what tools leave there."""
    return {name for name in files_below(folder) if "cache" not in name and "node_modules" not in name}


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_all_that_is_installed(built: Built) -> None:
    names = set(contents(built.wheel))
    data = f"agent_mesh-{__version__}.data"
    assert {f"{data}/data/share/{name}" for name in SHARED} <= names
    assert {f"{data}/scripts/{name}" for name in ("meshd", "meshctl", "agent-mesh")} <= names
    assert {"meshd/store/scripts/send.lua", "meshctl/claude-plugin/.mcp.json"} <= names
    for folder in ("claude-plugin", "systemd", "launchd"):
        assert {f"meshctl/{folder}/{name}" for name in sources(ROOT / "packaging" / folder)} <= names
    assert not [name for name in names if name.startswith(("tests", "packaging", "docker", "manual"))]


def test_the_sdist_has_all_that_it_is_built_from(built: Built) -> None:
    names = files_below(built.unpacked)
    assert {f"share/{name}" for name in SHARED} <= names
    for folder in ("packaging", "docker", "tests", "meshd", "meshctl"):
        assert {f"{folder}/{name}" for name in sources(ROOT / folder)} <= names
    assert {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"} <= names


def test_the_sdist_has_no_secret(built: Built) -> None:
    """docker/setup writes passwords into the tree."""
    (built.unpacked / "docker" / "secrets").mkdir()
    (built.unpacked / "docker" / "secrets" / "redis-url").write_text("redis://mesh:password@redis")
    run(built.python, "-m", "hatchling", "build", "-t", "sdist", "-d", built.folder / "third", cwd=built.unpacked)
    with tarfile.open(built.folder / "third" / built.sdist.name) as archive:
        assert not [name for name in archive.getnames() if "secrets/" in name]


def test_a_wheel_from_the_sdist_is_the_same(built: Built) -> None:
    assert contents(built.second) == contents(built.wheel)


def test_it_installs_into_an_empty_environment(built: Built, tmp_path: Path) -> None:
    """As pipx and uv do: the files land below the environment's own share."""
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv" / "bin" / "python", "-m", "pip", "install", "-q", built.second)
    assert set(SHARED) <= files_below(tmp_path / "venv" / "share")
    env = {"HOME": str(tmp_path), "PYTHONPATH": ""}
    for program in ("meshctl", "agent-mesh"):
        assert (
            run(tmp_path / "venv" / "bin" / program, "version", cwd=tmp_path, env=env) == f"agent-mesh {__version__}\n"
        )
    if shutil.which("systemctl"):
        shown = run(tmp_path / "venv" / "bin" / "meshctl", "service", "install", "--print", cwd=tmp_path, env=env)
        assert str(tmp_path / "venv") in shown
    assert run(tmp_path / "venv" / "bin" / "meshd", "--version", cwd=tmp_path, env=env) == f"meshd {__version__}\n"
    script = tmp_path / "venv" / "share" / "bash-completion" / "completions" / "meshctl"
    assert run(tmp_path / "venv" / "bin" / "meshctl", "completion", "bash", cwd=tmp_path, env=env) == script.read_text()
