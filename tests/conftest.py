"""Fixtures: stores and homes. A test that takes `store` or `home` runs against Valkey and against Redis."""

from __future__ import annotations

import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helper import Home, Store, a_home, program

# A limit of time would be one of how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_configure() -> None:
    """A run in the background has these ignored, and so would every process that a test starts, and sends them to."""
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, default)


@pytest.fixture(scope="session", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One server of each kind for the whole run, its log on. Tests share it by prefixes of their own."""
    if request.param == "redis" and shutil.which("redis-server") is None:
        pytest.fail("redis-server is not installed: tests/run installs it")
    folder = tmp_path_factory.mktemp(request.param)
    store = Store(program(request.param), folder, "--appendonly", "yes", "--maxclients", "5000")
    yield store
    store.close()


@pytest.fixture
def prefix() -> str:
    """A prefix that no other test uses."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def home(tmp_path: Path, server: Store, prefix: str) -> Iterator[Home]:
    """A user whose daemon uses the session's server; the daemon is not started yet."""
    with a_home(tmp_path / "home", server.url, AGENT_MESH_PREFIX=prefix) as made:
        yield made


@pytest.fixture
def other(tmp_path: Path, server: Store, prefix: str) -> Iterator[Home]:
    """A second user, as on another machine: its own home, the same store and prefix."""
    with a_home(tmp_path / "other", server.url, AGENT_MESH_PREFIX=prefix) as made:
        yield made


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Home]:
    """A user with no configuration at all: the daemon brings its own store."""
    with a_home(tmp_path / "lone") as made:
        yield made


@pytest.fixture(scope="session")
def mesh_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The store of `mesh`."""
    store = Store(program("valkey"), tmp_path_factory.mktemp("mesh-store"))
    yield store
    store.close()


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory, mesh_store: Store) -> Iterator[Home]:
    """A running daemon that many tests share. They leave it running, and use names of their own."""
    with a_home(tmp_path_factory.mktemp("mesh") / "home", mesh_store.url) as home:
        home.start()
        yield home


@pytest.fixture
def name() -> str:
    """An agent's name that no other test uses."""
    return f"a{secrets.token_hex(4)}"


@pytest.fixture
def peer() -> str:
    """A second such name."""
    return f"p{secrets.token_hex(4)}"
