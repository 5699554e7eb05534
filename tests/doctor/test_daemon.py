"""The daemon is broken in each way there is; doctor's line names it, and its command mends it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd import __version__
from tests.doctor.checkup import bad, checkup, cured, named
from tests.doctor.test_following import other_version, start
from tests.helper import Home, Store, a_home, wait_until

__all__ = ["other_version"]


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """The trouble is on this side of the store: one kind of it is enough."""
    return mesh_store


def ours(findings: list[dict[str, str]]) -> list[str]:
    """All that is wrong, but for the store of these tests, which keeps no log."""
    return [line for line in bad(findings) if "append-only" not in line]


def test_a_healthy_home_is_found_healthy(lone: Home) -> None:
    """As a new user has it: the daemon's own store, agents, nothing else."""
    lone.start()
    for name in ("bob", "carol"):
        lone.meshctl("register", name)
    lone.meshctl("send", "bob", "hello", "--from", "carol")
    assert bad(checkup(lone)) == []
    done = lone.run("doctor")
    assert done.returncode == 0
    assert done.stdout.endswith("\nall is well\n")


def test_nothing_is_started_and_no_file_is_made(lone: Home) -> None:
    findings = checkup(lone)
    named(findings, "meshd is not running: nothing at", "warning")
    assert [str(path.relative_to(lone.path)) for path in lone.path.rglob("*")] == []
    assert not os.path.exists(lone.socket)
    assert bad(cured(lone, named(findings, "is not running", "warning"))) == []


def test_doctor_leaves_every_file_as_it_is(home: Home) -> None:
    home.start()
    home.meshctl("register", "bob")

    def files() -> dict[str, tuple[float, bytes]]:
        found = [path for path in home.path.rglob("*") if path.is_file() and path.name != "meshd.out"]
        return {str(path): (path.stat().st_mtime, path.read_bytes()) for path in found}

    before = files()
    checkup(home)
    assert files() == before


def test_a_daemon_that_was_stopped_by_a_signal(home: Home) -> None:
    """SIGSTOP: named with its pid."""
    daemon = home.start()
    daemon.send_signal(signal.SIGSTOP)
    found = named(checkup(home), f"meshd (pid {daemon.pid}) was stopped by a signal")
    assert found["next"] == f"kill -CONT {daemon.pid}"
    assert ours(cured(home, found)) == []


def test_a_daemon_that_hangs_is_named_with_its_pid_and_ended(home: Home) -> None:
    """It reads a file that never answers: its configuration is a pipe that nobody writes into."""
    normal, home.env = home.env, home.env | {"XDG_CONFIG_HOME": str(home.path / "its own")}
    daemon = home.start()
    home.env = normal
    pipe = home.path / "its own" / "agent-mesh" / "config.toml"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: _hangs(home), "it hangs")
    named(checkup(home), f"meshd (pid {daemon.pid}) is starting, and does not answer within", "warning")
    os.utime(home.socket + ".lock", (0, 0))  # it took its lock long ago
    found = named(checkup(home), f"meshd (pid {daemon.pid}) holds its lock and does not answer within")
    assert found["next"].startswith(f"kill -9 {daemon.pid}; ")
    reaper = threading.Thread(target=daemon.wait)  # a shell that waits for its end would wait for our reaping it
    reaper.start()
    left = cured(home, found)
    reaper.join()
    assert ours(left) == []


def _hangs(home: Home) -> bool:
    with home.rpc() as rpc:
        rpc.socket.settimeout(0.5)
        try:
            rpc.call("hello")
        except TimeoutError:
            return True
    return False


def test_a_socket_that_a_killed_daemon_left(home: Home) -> None:
    home.start()
    home.kill()
    assert ours(cured(home, named(checkup(home), "a killed one left its socket", "warning"))) == []


@pytest.mark.parametrize("lock", [False, True], ids=["socket", "socket and lock"])
def test_a_socket_that_was_swept_away_under_a_daemon(home: Home, lock: bool) -> None:
    """The daemon lives, and nobody can reach it: named with its pid, ended, and another one started."""
    daemon = home.start()
    os.unlink(home.socket)
    if lock:
        os.unlink(home.socket + ".lock")
    found = named(checkup(home), f"meshd (pid {daemon.pid}) runs, and nobody can reach it")
    reaper = threading.Thread(target=daemon.wait)
    reaper.start()
    left = cured(home, found)
    reaper.join()
    assert ours(left) == []


def test_a_daemon_of_another_home_on_the_same_socket(home: Home, other: Home) -> None:
    home.start()
    other.env["XDG_RUNTIME_DIR"] = home.env["XDG_RUNTIME_DIR"]
    findings = checkup(other)
    found = named(findings, "is of another home")
    assert str(home.state) in found["what"]
    assert str(other.state) in found["what"]
    assert ours(cured(other, found)) == []
    assert home.daemon is not None
    assert home.daemon.poll() is None, "whoever uses it is not disturbed"


def test_a_daemon_of_this_home_on_another_socket(home: Home) -> None:
    """One started by hand with AGENT_MESH_SOCKET beside one without, or the other way round."""
    with tempfile.TemporaryDirectory(prefix="mo") as folder:
        elsewhere = f"{folder}/it's here.sock"
        normal, home.env = home.env, home.env | {"AGENT_MESH_SOCKET": elsewhere}
        daemon = home.start()
        home.env = normal
        found = named(checkup(home), f"meshd (pid {daemon.pid}) works with the files in {home.state}")
        assert f"on {elsewhere}" in found["what"]
        assert ours(cured(home, found)) == []


def test_a_file_of_somebody_else_where_a_variable_wants_the_socket(home: Home, tmp_path: Path) -> None:
    """It is not to be moved away."""
    path = tmp_path / "mine"
    path.write_text("mine")
    variables = {"AGENT_MESH_SOCKET": str(path)}
    found = named(checkup(home, **variables), f"{path} is not a socket")
    assert found["next"] == "unset AGENT_MESH_SOCKET && meshctl up"
    assert ours(cured(home, found, **variables)) == []
    assert path.read_text() == "mine"


def test_a_file_where_the_socket_should_be(home: Home) -> None:
    path = Path(home.socket)
    path.parent.mkdir(mode=0o700)
    path.write_text("mine")
    assert ours(cured(home, named(checkup(home), f"{path} is not a socket"))) == []
    assert Path(f"{path}.old").read_text() == "mine"


@pytest.fixture(params=["says nothing", "says nonsense", "hangs up"])
def stranger(request: pytest.FixtureRequest, home: Home) -> Iterator[None]:
    """Somebody else who listens where the daemon should."""
    os.mkdir(os.path.dirname(home.socket), 0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(home.socket)
    os.chmod(home.socket, 0o600)
    listener.listen()
    kept = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if request.param == "says nothing":
                kept.append(connection)
                continue
            if request.param == "says nonsense":
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for connection in kept:
        connection.close()


@pytest.mark.usefixtures("stranger")
def test_something_else_that_listens_there(home: Home) -> None:
    assert ours(cured(home, named(checkup(home), f"what listens on {home.socket} is no meshd"))) == []


@pytest.mark.parametrize(
    ("what", "mode", "words", "level"),
    [
        ("socket", 0o666, "is open to others (mode 0666)", "error"),
        ("socket", 0o644, "is open to others (mode 0644)", "warning"),
        ("folder", 0o777, "others may write into the socket's folder", "error"),
        ("folder", 0o755, "others may look into the socket's folder", "warning"),
    ],
)
def test_permissions_that_let_others_in(home: Home, what: str, mode: int, words: str, level: str) -> None:
    home.start()
    os.chmod(home.socket if what == "socket" else os.path.dirname(home.socket), mode)
    assert ours(cured(home, named(checkup(home), words, level))) == []


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path, server: Store, prefix: str) -> None:
    """It works, in /tmp, where it may be swept away: said, with a variable that keeps it at home."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir(mode=0o700)
    with tempfile.TemporaryDirectory(prefix="mh") as short, a_home(Path(short), server.url) as home:
        home.env |= {"AGENT_MESH_PREFIX": prefix, "AGENT_MESH_SOCKET": str(deep / "meshd.sock")}
        home.start()
        found = named(checkup(home), "is too long for a socket", "warning")
        assert ours(cured(home, found)) == []
        home.run("down", AGENT_MESH_SOCKET=f"{short}/.meshd.sock")


def test_a_daemon_of_another_version(other_version: Home) -> None:
    start(other_version, "0.1.9")
    found = named(checkup(other_version), f"meshd 0.1.9 runs, older than this meshctl {__version__}", "warning")
    assert found["next"] == "meshctl down && meshctl up"
    assert ours(cured(other_version, found)) == []


def test_a_newer_daemon_than_this_client(other_version: Home) -> None:
    """The client to use is the one beside the daemon's own program."""
    source: Path = other_version.source  # type: ignore[attr-defined]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", source / "v"], check=True)
    beside = source / "v" / "bin" / "meshctl"
    beside.write_text(f'#!/bin/sh\nPYTHONPATH={source}:"{":".join(sys.path[1:])}" exec python -m meshctl "$@"\n')
    beside.chmod(0o755)
    python, sys.executable = sys.executable, str(source / "v" / "bin" / "python")
    try:
        start(other_version, "99.0", PYTHONPATH=f"{source}:{':'.join(sys.path[1:])}")
    finally:
        sys.executable = python
    found = named(checkup(other_version), "meshd 99.0 runs, newer than this meshctl", "warning")
    assert found["next"] == f"export PATH={source}/v/bin:$PATH"
    assert ours(cured(other_version, found)) == []


def test_another_configuration_in_this_shell_than_the_daemon_s(home: Home) -> None:
    home.start()
    variables = {"AGENT_MESH_PREFIX": "another"}
    found = named(checkup(home, **variables), "the daemon runs with the prefix", "warning")
    assert "this shell's configuration says another" in found["what"]
    assert ours(cured(home, found, **variables)) == []


def test_a_configuration_that_cannot_be_read(home: Home) -> None:
    home.config.parent.mkdir(parents=True)
    home.config.write_text('prefixx = "a"\n')
    found = named(checkup(home), f"{home.config}: unknown key 'prefixx'")
    assert found["next"] == f"${{EDITOR:-vi}} {home.config}  # did you mean 'prefix'?"
    editor = home.path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/prefixx/prefix/ "$1"\n')
    editor.chmod(0o755)
    cured(home, found, EDITOR=str(editor))


def test_a_variable_that_cannot_be_right(home: Home) -> None:
    variables = {"AGENT_MESH_GATE_LIMIT": "many"}
    found = named(checkup(home, **variables), "AGENT_MESH_GATE_LIMIT: gate_limit: ")
    assert found["next"].startswith("unset AGENT_MESH_GATE_LIMIT  # or ")
    cured(home, found, **variables)
