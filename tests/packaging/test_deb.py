"""The Debian package: built, installed into a copy of this machine's root, used there, upgraded, and removed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshd import __version__
from tests.packaging.building import ROOT, once, run
from tests.packaging.changed_root import run_inside

pytestmark = pytest.mark.timeout(600)  # pip downloads
PYTHON = "/usr/bin/python3"
# What dpkg and its triggers write about every package, and man's index.
BOOKS = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/etc/ld.so.cache")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("this is no Debian: there is no dpkg-deb")
    version = "import sys; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run([PYTHON, "-c", version], check=False).returncode:
        pytest.skip("Debian's own Python is not there, or older than 3.11")
    folder = once(tmp_path_factory, "deb", build)
    (made,) = folder.glob("*.deb")
    return made


def build(folder: Path) -> None:
    env = {"PYTHON": PYTHON, "PIP": f"{sys.executable} -m pip", "DEBEMAIL": "maintainer@agent-mesh.dev"}
    said = run(ROOT / "packaging" / "deb" / "build", folder, cwd=folder, env=env)
    assert Path(said.strip()).parent == folder


def test_it_is_named_for_the_version_and_says_what_it_needs(package: Path) -> None:
    architecture = run("dpkg", "--print-architecture").strip()
    assert package.name == f"agent-mesh_{__version__}-1_{architecture}.deb"
    control = run("dpkg-deb", "--info", package, "control")
    minor = int(run(PYTHON, "-c", "import sys; print(sys.version_info[1])"))
    assert f"Depends: python3 (>= 3.{minor}), python3 (<< 3.{minor + 1}), libc6" in control
    assert "@" not in control.replace("maintainer@", "")


def test_nothing_in_it_runs_by_itself_or_tells_where_it_was_built(package: Path, tmp_path: Path) -> None:
    run("dpkg-deb", "--raw-extract", package, tmp_path / "raw")
    assert {path.name for path in (tmp_path / "raw" / "DEBIAN").iterdir()} == {"control", "md5sums"}
    assert not [*tmp_path.rglob("*.wants"), *tmp_path.rglob("direct_url.json")]
    found = subprocess.run(
        ["grep", "-rlE", r"/tmp/tmp\.|pytest-of", tmp_path / "raw" / "usr"], capture_output=True, text=True
    )
    assert found.stdout == ""
    for unit in (tmp_path / "raw" / "usr" / "lib" / "systemd" / "user").iterdir():
        assert not re.search(r"@\w+@", unit.read_text())


def test_lintian_finds_nothing(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed: tests/run installs it")
    done = subprocess.run(["lintian", "--fail-on", "error,warning", package], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


USE = f"""
dpkg --path-include='*' -i /tmp/*.deb > /dev/null
dpkg --verify agent-mesh
echo "links $(readlink -f /usr/bin/meshctl /usr/bin/agent-mesh /usr/bin/meshd | tr '\\n' ' ')"
test "$(meshctl version)" = 'agent-mesh {__version__}'
test "$(agent-mesh version)" = 'agent-mesh {__version__}'
test "$(meshd --version)" = 'meshd {__version__}'
test ! -e /tmp/home/.config/systemd
meshctl demo
meshctl register bob > /dev/null
meshctl completion bash | cmp - /usr/share/bash-completion/completions/meshctl
bash -c '. /usr/share/bash-completion/completions/agent-mesh
    COMP_WORDS=(agent-mesh send b) COMP_CWORD=2; _meshctl; echo "bash $COMPREPLY"; complete -p agent-mesh'
! command -v fish > /dev/null || fish -c 'complete -C "agent-mesh inbox "'
! command -v zsh > /dev/null || zsh -fc 'autoload -Uz compinit; compinit -u -D; echo "zsh $_comps[agent-mesh]"'
! command -v man > /dev/null || for page in agent-mesh meshd agent-mesh.toml; do man -P cat $page | grep -A1 ^NAME; done
! command -v systemd-analyze > /dev/null ||
    systemd-analyze --user verify --man=no --recursive-errors=no /usr/lib/systemd/user/meshd.service
meshctl down
dpkg -P agent-mesh > /dev/null
test ! -e /usr/lib/agent-mesh
hash -r
! command -v meshctl meshd agent-mesh
"""


def test_it_installs_works_and_leaves_nothing(package: Path, tmp_path: Path) -> None:
    out, changed = run_inside(tmp_path, USE, package)
    assert "links " + " ".join(f"/usr/lib/agent-mesh/bin/{name}" for name in ("meshctl", "agent-mesh", "meshd")) in out
    assert "bash bob\n" in out
    assert "complete -F _meshctl agent-mesh\n" in out
    if shutil.which("fish"):
        assert re.search(r"^bob$", out, re.M)
    if shutil.which("zsh"):
        assert "zsh _meshctl\n" in out
    if shutil.which("man"):
        for what in ("meshctl - messages between", "meshd - the daemon", "agent-mesh.toml - the configuration"):
            assert what in out
    assert {name for name in changed if not name.startswith(BOOKS)} == set()


UPGRADE = """
dpkg -i /tmp/older.deb > /dev/null
test -e /usr/lib/agent-mesh/left-over
meshctl send bob hello --from alice --id an-id
meshctl register bob
dpkg -i /tmp/agent-mesh_*.deb > /dev/null
dpkg --verify agent-mesh
dpkg-query -W -f 'now ${Version} ${Status}\\n' agent-mesh
test ! -e /usr/lib/agent-mesh/left-over
meshctl down
meshctl inbox bob
meshctl down
dpkg -r agent-mesh > /dev/null
! dpkg-query -W agent-mesh 2> /dev/null
test -d /tmp/home/.local/state/agent-mesh
"""


def test_it_upgrades_an_older_one_and_its_removal_leaves_the_mail(package: Path, tmp_path: Path) -> None:
    """While a daemon of the older one runs. There is no difference between remove and purge: it has no conffiles."""
    run("dpkg-deb", "--raw-extract", package, tmp_path / "raw")
    control = tmp_path / "raw" / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 0.0.1-1", control.read_text()))
    (tmp_path / "raw" / "usr" / "lib" / "agent-mesh" / "left-over").touch()
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tmp_path / "raw", tmp_path / "older.deb")
    out, changed = run_inside(tmp_path, UPGRADE, tmp_path / "older.deb", package)
    assert f"now {__version__}-1 install ok installed\n" in out
    assert "[DIRECT from alice] hello\n" in out
    assert {name for name in changed if not name.startswith(BOOKS)} == set()
