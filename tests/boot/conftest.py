"""Fixtures: the machine, booted once for all, and a user of it for whom `pipx install .` is all that was done."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.boot.machine import Login, Machine
from tests.boot.readme import command
from tests.helper import wait_until
from tests.packaging.building import ROOT

# Not of the source: other people's environments, caches, secrets that were made here.
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "secrets", "dist")
STORED = "/var/lib/installed"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Making a machine and installing into it is done in the first test that needs it."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def worth_trying() -> None:
    """Skips with the reason if it is not. tests/boot/run says so."""
    if reason := os.environ.get("AGENT_MESH_TESTS_NO_BOOT", "to boot a machine is a step of its own: tests/boot/run"):
        pytest.skip(reason)


class Building(NamedTuple):
    """It prints the path of the package."""

    process: subprocess.Popen[str]
    log: Path


@pytest.fixture(scope="session")
def building(
    worth_trying: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Building | None]:
    """The build of the Debian package, begun before it is needed: it takes as long as to make the machine."""
    if not any("package" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("deb")
    command = [ROOT / "packaging" / "deb" / "build", folder]
    variables = os.environ | {"PIP": f"{sys.executable} -m pip", "DEBEMAIL": "maintainer@agent-mesh.dev"}
    with (
        open(folder / "log", "w") as log,
        subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        yield Building(process, folder / "log")
        process.terminate()


@pytest.fixture(scope="session")
def machine(worth_trying: None, building: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Without anything of ours, and up."""
    folder = tmp_path_factory.mktemp("machine")
    with in_memory(folder):
        made = Machine(folder)
        try:
            made.make()
            made.boot()
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def in_memory(folder: Path) -> Iterator[None]:
    """The folder is in memory while it is used: a disk is slow to write so many files, and to remove them."""
    mount = ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def installed(machine: Machine) -> Machine:
    """Ann has a clone and nothing else, and does what the README says first. Her home is kept as it is then."""
    shutil.copytree(ROOT, machine.share / "agent-mesh", ignore=_NOT_COPIED)
    with machine.login("ann") as ann:
        ann.sh("cp -r /share/agent-mesh ~")
        ann.sh(f"cd agent-mesh && {command('pipx install .')}", 300)
    wait_until(lambda: not machine.is_served("ann"), "ann's manager ends")
    machine.sh(f"cp -a /home/ann {STORED}")
    return machine


@pytest.fixture
def fresh(installed: Machine) -> Iterator[Machine]:
    """Nobody is logged in, and ann's home is as after the installation."""
    installed.sh(f"rm -rf /home/ann && cp -a {STORED} /home/ann && journalctl -q --rotate --vacuum-time=1us")
    yield installed
    end(installed)


def end(machine: Machine) -> None:
    """As if ann had never logged in."""
    machine.sh(f"loginctl disable-linger ann; systemctl stop user@{machine.uid('ann')}; pkill -KILL -u ann || true")
    wait_until(lambda: not machine.is_served("ann") and machine.try_sh("pgrep -u ann").code == 1, "ann is gone")


@pytest.fixture
def ann(fresh: Machine) -> Iterator[Login]:
    """Logged in, in a home as it is after the installation."""
    with fresh.login("ann") as session:
        yield session


@pytest.fixture
def served(ann: Login) -> Login:
    """The same, with the service installed."""
    ann.sh(command("meshctl service install"))
    return ann
