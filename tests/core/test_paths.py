"""Where the socket is: private, and short enough for the system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd import paths
from meshd.paths import SOCKET_PATH_BUDGET, socket_path, store_socket_path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENT_MESH_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_the_runtime_folder_is_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(paths, "_within_budget", lambda path: path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert socket_path() == f"{tmp_path}/agent-mesh/meshd.sock"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720, 0o702])
def test_a_runtime_folder_that_others_may_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """Whoever can put a socket there could be taken for the daemon."""
    tmp_path.chmod(mode)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert not socket_path().startswith(str(tmp_path))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_another_user_s_runtime_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `sudo` that keeps the environment."""
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 65534, 65534)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert not socket_path().startswith(str(tmp_path))


def test_a_relative_runtime_folder_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    assert os.path.isabs(socket_path())
    assert socket_path() != os.path.abspath("run/agent-mesh/meshd.sock")


def test_without_any_runtime_folder_it_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in /tmp, where a cleaner would sweep it away."""
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert socket_path() == "/h/.local/state/agent-mesh/run/meshd.sock"


def test_an_explicit_path_wins_and_is_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    monkeypatch.chdir("/")
    monkeypatch.setenv("AGENT_MESH_SOCKET", "x.sock")
    assert socket_path() == "/x.sock"
    assert store_socket_path() == "/x.store"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=120))
def test_a_socket_path_is_never_over_its_budget(name: str) -> None:
    """In bytes; a long one becomes a short one that is the same for every process, and another for another path."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AGENT_MESH_SOCKET", f"/run/{name}")
        path = socket_path()
        assert len(os.fsencode(path)) <= SOCKET_PATH_BUDGET
        assert len(os.fsencode(store_socket_path())) <= SOCKET_PATH_BUDGET
        assert store_socket_path() != path == socket_path()
        whole = os.path.abspath(f"/run/{name}")
        if len(os.fsencode(whole)) <= SOCKET_PATH_BUDGET:
            assert path == whole
        else:
            assert path.startswith(f"/tmp/agent-mesh-{os.getuid()}/")
            monkeypatch.setenv("AGENT_MESH_SOCKET", f"/run/{name}2")
            assert socket_path() != path


@pytest.mark.parametrize("length", [SOCKET_PATH_BUDGET - 1, SOCKET_PATH_BUDGET, SOCKET_PATH_BUDGET + 1])
def test_the_budget_is_met_to_the_byte(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    long = "/" + "x" * (length - 1)
    monkeypatch.setenv("AGENT_MESH_SOCKET", long)
    assert (socket_path() == long) == (length <= SOCKET_PATH_BUDGET)


def test_files_of_an_agent() -> None:
    """As SPEC.md, section 6, names the one that other programs read."""
    assert paths.notify_log("bob") == os.path.join(paths.cache_dir(), "notify-bob.log")
    assert len({paths.notify_log("bob"), paths.journal("bob"), paths.watch_cursor("bob")}) == 3
