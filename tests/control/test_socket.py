"""The socket itself: private, one daemon's, there as long as it lives; and passed on by systemd."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helper import DEADLINE, Home, Rpc, Store, wait_until

NOBODY = 65534
ROOT = Path(__file__).parent.parent.parent
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/usr/bin/python3"),
    reason="becoming another user needs root, and a Python that is there for everybody",
)


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """About the socket: one kind of store is enough."""
    return mesh_store


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def run_meshd(home: Home) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshd"], env=home.env, capture_output=True, text=True, timeout=DEADLINE
    )


def test_the_socket_is_0600_in_a_folder_of_0700(home: Home) -> None:
    """Whatever the umask of whoever starts it."""
    folder = os.path.dirname(home.socket)
    before = os.umask(0)
    try:
        home.start()
    finally:
        os.umask(before)
    assert mode(home.socket) == 0o600
    assert mode(folder) == 0o700
    assert mode(home.socket + ".lock") == 0o600


def test_a_folder_that_others_can_write_into_is_refused(home: Home) -> None:
    """They could put a socket of their own there. It is named, with the command that mends it."""
    folder = os.path.dirname(home.socket)
    os.makedirs(folder)
    os.chmod(folder, 0o777)
    done = run_meshd(home)
    assert done.returncode == 78
    assert f"others may write into the folder {folder}\n  next: chmod go-w {folder}\n" in done.stderr
    os.chmod(folder, 0o755)
    home.start()
    assert mode(home.socket) == 0o600


STRANGER = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(10)
client.connect(sys.argv[1])
try:
    client.sendall(b'{"id":1,"method":"inbox","params":{"name":"bob"}}\\n')
except OSError:
    pass
said = b""
try:
    while data := client.recv(65536):
        said += data
except ConnectionResetError:
    pass
sys.stdout.buffer.write(said)
"""


def open_up(home: Home) -> None:
    """What no user should do: everybody may reach the socket."""
    folder = os.path.dirname(home.socket)
    for path in (os.path.dirname(folder), folder):
        os.chmod(path, 0o755)
    os.chmod(home.socket, 0o666)


@needs_root
def test_another_user_is_refused_even_if_the_folder_is_open(home: Home) -> None:
    """It is told so, gets nothing else, and the owner goes on."""
    home.start()
    home.meshctl("send", "bob", "secret")
    open_up(home)
    done = subprocess.run(
        ["/usr/bin/python3", "-c", STRANGER, home.socket],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    assert '"kind":"not_allowed"' in done.stdout
    assert "this daemon serves only the user who started it" in done.stdout
    assert "secret" not in done.stdout
    assert home.meshctl("inbox", "bob") == "[DIRECT from cli] secret\n"


@needs_root
def test_the_client_of_another_user_ends_with_exit_code_7(home: Home) -> None:
    """With the daemon's own words if it got through, and with the system's if it did not."""
    home.start()

    def as_nobody() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/usr/bin/python3", "-m", "meshctl", "who"],
            env=home.env | {"AGENT_MESH_SOCKET": home.socket, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
        )

    closed = as_nobody()
    if "No module named" in closed.stderr:
        pytest.skip("this source tree is not readable for other users")
    assert closed.returncode == 7
    assert closed.stderr == f"cannot connect to {home.socket}: Permission denied\n  next: meshctl doctor\n"
    open_up(home)
    refused = as_nobody()
    assert refused.returncode == 7
    assert refused.stderr == "this daemon serves only the user who started it\n  next: start your own: meshctl up\n"


def test_a_second_daemon_says_that_one_runs_and_exits_0(home: Home) -> None:
    daemon = home.start()
    done = run_meshd(home)
    assert done.returncode == 0
    assert f"meshd is already running (pid {daemon.pid})\n  next: meshctl status\n" in done.stderr
    assert home.json("status")["pid"] == daemon.pid


def test_the_lock_counts_and_not_the_socket(home: Home) -> None:
    """A second daemon stays away even when somebody removed the first one's socket."""
    home.start()
    os.unlink(home.socket)
    done = run_meshd(home)
    assert done.returncode == 0
    assert "already running" in done.stderr
    assert not os.path.exists(home.socket)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_gives_everything_up(home: Home, server: Store, prefix: str, number: signal.Signals) -> None:
    """The socket is removed, the leases and registry entries are gone from the store, waiting calls are told."""
    daemon = home.start()
    names = {f"a{k}" for k in range(5)}
    with home.rpc() as rpc, home.rpc() as waiting, server.client() as client:
        for name in names:
            rpc.call("register", name=name)
        assert len(client.keys(f"{prefix}:lease:*")) == len(client.keys(f"{prefix}:registry:*")) == 5
        request = waiting.send("listen", name="a0", timeout=60)
        rpc.call("hello")
        daemon.send_signal(number)
        answer = waiting.read()
        assert (answer["id"], answer["error"]["data"]["kind"]) == (request, "stopping")
        assert answer["error"]["data"]["retryable"] is True
        assert daemon.wait(DEADLINE) == 0
        assert client.keys(f"{prefix}:lease:*") == []
        assert client.keys(f"{prefix}:registry:*") == []
    assert not os.path.exists(home.socket)
    assert home.log().splitlines()[-1].endswith("meshd stopped")
    assert "Traceback" not in home.log()
    assert "Warning" not in home.log()


def test_a_daemon_with_nothing_to_do_stops_at_once_too(home: Home) -> None:
    home.start()
    assert home.stop() == 0
    assert not os.path.exists(home.socket)


def test_shutdown_on_the_socket_ends_the_connection_when_all_is_over(home: Home) -> None:
    """Whoever asked knows by the end of its connection that the lock is free and the socket gone."""
    daemon = home.start()
    with home.rpc() as rpc:
        assert rpc.call("down")["pid"] == daemon.pid
        with pytest.raises(EOFError):
            rpc.read()
        assert not os.path.exists(home.socket)
        home.start()
    assert daemon.wait(DEADLINE) == 0


def test_a_socket_that_a_killed_daemon_left_is_taken_over(home: Home) -> None:
    home.start()
    home.kill()
    assert os.path.exists(home.socket)
    with pytest.raises(ConnectionRefusedError):
        home.rpc()
    home.start()
    assert home.meshctl("who") == "(no agents registered)\n"


@pytest.mark.parametrize("length", [100, 101, 150, 300])
def test_a_path_that_is_too_long_for_a_socket_is_replaced_by_a_short_one(home: Home, length: int) -> None:
    """Daemon and client agree on it, it is private, and 100 bytes are still used as they are."""
    folder = tempfile.mkdtemp(prefix="ml")
    path = folder + "/" + secrets.token_hex(200)[: length - len(folder) - len("/.sock")] + ".sock"
    if length > 255:
        path = folder + "/" + "d" * 100 + "/" + "e" * 100 + path[len(folder) + 202 :]
    assert len(path) == length
    home.env["AGENT_MESH_SOCKET"] = path
    home.start()
    try:
        used = home.meshctl("path", "socket").strip()
        assert (used == path) is (length <= 100)
        assert len(used) <= 100
        assert mode(used) == 0o600
        assert mode(os.path.dirname(used)) == 0o700
        home.meshctl("send", "bob", "hello")
        assert home.meshctl("inbox", "bob") == "[DIRECT from cli] hello\n"
        assert home.stop() == 0
        assert not os.path.exists(used)
    finally:
        sent = used.removesuffix(".sock") + ".sent-"
        for left in (used + ".lock", used + ".start", sent + "0", sent + "1"):
            Path(left).unlink(missing_ok=True)
        for parent in (Path(path).parent, Path(path).parent.parent, Path(folder)):
            if parent.is_relative_to(folder) and parent.exists():
                parent.rmdir()


# As systemd does it: the socket is number 3, and LISTEN_PID is the process that is started.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="meshd.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_socket_that_systemd_passes_is_adopted_and_left_in_place(home: Home) -> None:
    """A client that came before the daemon is served; after a stop the socket is still there, for the next start."""
    os.makedirs(os.path.dirname(home.socket), mode=0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(home.socket)
        os.chmod(home.socket, 0o600)
        listening.listen()
        for k in range(2):
            with Rpc(home.socket) as early:
                asked = early.send("hello")
                with open(home.path / "meshd.out", "ab") as log:
                    home.daemon = subprocess.Popen(
                        [sys.executable, "-c", ACTIVATE, str(listening.fileno()), sys.executable, "-m", "meshd"],
                        env=home.env | {"AGENT_MESH_MANAGED_BY": "systemd"},
                        pass_fds=[listening.fileno()],
                        stdout=log,
                        stderr=log,
                    )
                answer = early.read()
                assert answer["id"] == asked
                assert (answer["result"]["pid"], answer["result"]["managed_by"]) == (home.daemon.pid, "systemd")
            home.meshctl("send", "bob", f"hello {k}")
            assert home.meshctl("inbox", "bob") == f"[DIRECT from cli] hello {k}\n"
            environment = Path(f"/proc/{home.daemon.pid}/environ")
            assert environment.exists()
            assert home.stop() == 0
            assert stat.S_ISSOCK(os.stat(home.socket).st_mode)
        assert "Traceback" not in home.log()


def test_a_socket_that_took_the_path_over_is_left_in_place(home: Home) -> None:
    """systemd binds over a live daemon's path; what that one removes as it ends must be its own."""
    home.start()
    os.unlink(home.socket)
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(home.socket)
        assert home.stop() == 0
        assert stat.S_ISSOCK(os.lstat(home.socket).st_mode)


def test_a_socket_that_is_meant_for_another_process_is_not_adopted(home: Home) -> None:
    """LISTEN_PID names somebody else: the variables were inherited, and number 3 may be anything."""
    home.env |= {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    home.start()
    assert home.meshctl("who") == "(no agents registered)\n"
    assert home.stop() == 0
    assert not os.path.exists(home.socket)


def test_the_store_is_not_handed_the_clients_or_the_lock(lone: Home) -> None:
    """The embedded store outlives a killed daemon, so it must hold neither its socket nor its lock."""
    lone.start()
    with lone.rpc() as rpc:
        store = rpc.call("status")["store"].get("pid") or wait_until(
            lambda: rpc.call("up")["store"].get("pid"), "the store runs"
        )
    held = {os.readlink(f"/proc/{store}/fd/{fd}") for fd in os.listdir(f"/proc/{store}/fd")}
    assert not any(path.endswith(".lock") for path in held)
    lone.kill()
    lone.start()
    assert lone.json("up")["store"]["pid"] == store
