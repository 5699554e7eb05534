"""What goes wrong around the daemon: its configuration, its folders, its disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helper import Home, Store, a_home, wait_until


@pytest.fixture
def server(mesh_store: Store) -> Store:
    """The trouble is on this side of the store: one kind of it is enough."""
    return mesh_store


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.mark.parametrize("umask", [0, 0o022])
@pytest.mark.parametrize("rotates", [False, True])
def test_nobody_else_can_read_what_is_made(lone: Home, umask: int, rotates: bool) -> None:
    """Whatever the user's umask is: every file, socket and folder, those that the log's rotation makes among them."""
    if rotates:
        log = lone.state / "meshd.log"
        log.parent.mkdir(parents=True, mode=0o700)
        log.write_text("x" * (1 << 20))
        log.chmod(0o600)
        for folder in (lone.state.parent, lone.state.parent.parent):
            folder.chmod(0o700)
    script = f'umask {umask:o}; m() {{ {sys.executable} -m meshctl "$@"; }}; ' + (
        "m register bob && m send bob hi --expect-reply && m watch bob --timeout 0.1 && m inbox bob && m status"
    )
    subprocess.run(["sh", "-c", script], env=lone.env, capture_output=True, check=True, timeout=60)
    runtime = Path(lone.socket).parent
    made = [*lone.path.rglob("*"), runtime, *runtime.rglob("*")]
    assert rotates == (lone.state / "meshd.log.1").exists()
    assert [(str(path), oct(path.lstat().st_mode)) for path in made if path.lstat().st_mode & 0o077] == []


def configure(home: Home, text: str) -> None:
    home.config.parent.mkdir(parents=True, exist_ok=True)
    home.config.write_text(text)


def run_meshd(home: Home) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "meshd"], env=home.env, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr


BAD_CONFIGURATIONS = {
    'prefx = "a"': ("unknown key 'prefx'", "did you mean 'prefix'?"),
    "xyzzy = 1": ("unknown key 'xyzzy'", "known: redis_url, "),
    'socket = "/x"': ("'socket' cannot be set here", "set the variable AGENT_MESH_SOCKET instead"),
    'gate_limit = "many"': ("gate_limit: ", "give gate_limit a value of the right type"),
    "gate_limit = 0": ("gate_limit: 1 or more", "correct gate_limit and start again"),
    "max_message = 2000000": ("max_message: from 1 to 1048576 bytes", "correct max_message and start again"),
    'escalate_to = "a/b"': ("escalate_to: not an agent's name", "correct escalate_to"),
    "prefix = [": ("Invalid", "mend the file"),
}


@pytest.mark.parametrize("text", BAD_CONFIGURATIONS)
def test_a_wrong_configuration_is_named_by_daemon_and_client(lone: Home, text: str) -> None:
    """meshd exits 78, the client 3; both name the file and the key, and say what to do."""
    configure(lone, text + "\n")
    what, hint = BAD_CONFIGURATIONS[text]
    code, said = run_meshd(lone)
    assert code == 78
    assert str(lone.config) in said
    assert what in said
    assert f"  next: {hint}" in said
    done = lone.run("send", "bob", "hi")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"meshd was not started: {lone.config}: ")
    assert what in done.stderr
    assert f"\n  next: {hint}" in done.stderr
    assert lone.run("status").returncode == 3
    assert not os.path.exists(lone.socket)


def test_a_wrong_variable_is_named(lone: Home) -> None:
    lone.env["AGENT_MESH_GATE_LIMIT"] = "lots"
    code, said = run_meshd(lone)
    assert code == 78
    assert "AGENT_MESH_GATE_LIMIT: gate_limit: " in said
    done = lone.run("up")
    assert done.returncode == 3
    assert "AGENT_MESH_GATE_LIMIT" in done.stderr


@pytest.mark.parametrize(
    "url", ["redis://u:hunter2@127.0.0.1:1/0?bogus=1", "unix:///x?bogus=1", "rediss://u:hunter2@h?bogus=x"]
)
def test_an_option_of_the_stores_address_that_there_is_not_is_named(lone: Home, url: str) -> None:
    """By the daemon, which does not start, by the client, and by doctor; its password by nobody."""
    lone.env["AGENT_MESH_REDIS_URL"] = url
    code, said = run_meshd(lone)
    done, doctor = lone.run("up"), lone.run("doctor")
    assert (code, done.returncode, done.stdout, doctor.returncode) == (78, 3, "", 1)
    for words in (said, done.stderr, doctor.stdout):
        assert "the option 'bogus' is unknown" in words
        assert "hunter2" not in words


def test_an_unreadable_file_with_the_stores_address_is_named(lone: Home) -> None:
    lone.env["AGENT_MESH_REDIS_URL_FILE"] = str(lone.path / "missing")
    done = lone.run("up")
    assert done.returncode == 3
    assert f"cannot read the store's URL from {lone.path}/missing" in done.stderr


@pytest.mark.parametrize("folder", ["state", "cache", "agents", "socket"])
def test_a_file_where_a_folder_belongs_is_named(lone: Home, folder: str) -> None:
    """The client names the path and the reason, exit code 3; the file is left alone."""
    path = {
        "state": lone.state,
        "cache": lone.cache,
        "agents": lone.state / "agents",
        "socket": Path(lone.socket).parent,
    }[folder]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    done = lone.run("send", "bob", "hi")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"cannot make the folder {path}" in done.stderr
    assert "  next: " in done.stderr
    assert run_meshd(lone)[0] == 78
    assert path.read_text() == "mine"
    path.unlink()
    lone.meshctl("send", "bob", "hi")


def test_something_else_at_the_sockets_path_is_left_alone(lone: Home) -> None:
    path = Path(lone.socket)
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    done = lone.run("send", "bob", "hi")
    assert done.returncode == 3
    assert f"{path} is there and is not a socket\n  next: move it away: {path}\n" in done.stderr
    assert path.read_text() == "mine"
    path.unlink()


@needs_root
def test_a_read_only_state_folder_is_named(lone: Home) -> None:
    lone.state.mkdir(parents=True)
    for program, code in (("meshd", 78), ("meshctl", 3)):
        command = [sys.executable, "-m", program, *(["up"] if program == "meshctl" else [])]
        done = subprocess.run(
            [*read_only_at(lone.state), *command], env=lone.env, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == code, done.stderr
        assert f"the folder {lone.state} is on a disk that is mounted read-only\n  next: " in done.stderr
    assert list(lone.state.iterdir()) == []


def read_only_at(path: Path) -> list[str]:
    """What runs a command where nothing can be written at the path."""
    mount = f"mount --bind {path} {path} && mount -o remount,bind,ro {path}"
    return ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]


class SmallDisk:
    """A home whose daemon has its state and cache on small file systems of their own."""

    SIZE = 256 * 1024

    def __init__(self, home: Home) -> None:
        self.home = home
        for folder in (home.state, home.cache):
            folder.mkdir(parents=True, mode=0o700)

    def start(self, folder: Path) -> None:
        mount = f"mount -t tmpfs -o size={self.SIZE},mode=700 small {folder}"
        self.home.start(through=["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"])
        assert self.home.daemon is not None
        self._inside = Path(f"/proc/{self.home.daemon.pid}/root{folder}")

    def fill(self, left: int = 0) -> None:
        """Nothing is left, or so many bytes."""
        with open(self._inside / "filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                file.truncate(file.tell() - left)

    def free(self) -> None:
        (self._inside / "filler").unlink()


@pytest.fixture
def small(home: Home) -> SmallDisk:
    return SmallDisk(home)


@needs_root
def test_a_full_disk_loses_nothing_and_is_said_and_got_over(small: SmallDisk) -> None:
    """Sends are acknowledged, status names the disk, and with space again everything is there once, in order."""
    home = small.home
    small.start(home.state)
    home.meshctl("register", "bob")
    small.fill()
    wanted = [f"{k:02} {'x' * 2000}" for k in range(20)]
    for text in wanted:
        home.meshctl("send", "bob", text, "--from", "alice")

    def trouble() -> str:
        return str(home.json("status")["agents"][0]["trouble"])

    wait_until(lambda: "No space left on device" in trouble(), "status names the full disk")
    assert f"bob: cannot write in {home.state}/agents: No space left on device\n" in home.meshctl("status")
    doctor = home.run("doctor")
    assert doctor.returncode == 1
    assert "No space left on device" in doctor.stdout
    small.free()
    wait_until(lambda: len(home.json("inbox", "bob", "--peek")["messages"]) == 20, "everything was received")
    assert [m["text"] for m in home.json("inbox", "bob")["messages"]] == wanted
    wait_until(lambda: trouble() == "None", "status is clean again")
    assert home.meshctl("inbox", "bob") == ""
    assert len(home.notify_lines("bob")) == 20


@needs_root
def test_what_is_acknowledged_as_the_disk_of_the_embedded_store_fills_up_outlives_the_store(lone: Home) -> None:
    """Valkey answers first and finds out then that its log cannot be written: nothing may be given to it."""
    small = SmallDisk(lone)
    small.SIZE = 4 << 20
    small.start(lone.state)
    lone.meshctl("up")
    store = lone.json("status")["store"]["pid"]
    small.fill(left=600 << 10)
    acknowledged = []
    while (done := lone.run("send", "bob", "x" * 5000)).returncode == 0:
        acknowledged.append(done.stdout.split()[1])
    assert len(acknowledged) > 1
    assert done.returncode == 4
    assert "not sent: the store refuses writes for now: there is no room on its disk\n" in done.stderr
    assert lone.run("status").stdout.startswith("does not work: the store refuses writes for ")
    os.kill(store, signal.SIGKILL)
    small.free()
    wait_until(lambda: lone.run("send", "bob", "y").returncode == 0, "it takes writes again")
    assert lone.json("status")["ok"]
    found = [message["id"] for message in lone.json("inbox", "bob")["messages"]]
    assert found[:-1] == acknowledged


@needs_root
def test_a_read_that_cannot_be_written_down_comes_again(small: SmallDisk) -> None:
    """The mail was shown, and the command says that the disk did not take it: exit code 1, still unread."""
    home = small.home
    small.start(home.state)
    ids = [f"{k:03}{'x' * 61}" for k in range(100)]  # so long that their record is more than one block of the disk
    with home.rpc() as rpc:
        for message_id in ids:
            rpc.call("send", target="bob", message=message_id[:3], id=message_id, from_="alice")
    wait_until(lambda: len(home.json("inbox", "bob", "--peek")["messages"]) == 100, "all are there")
    small.fill()
    failed = home.run("inbox", "bob")
    assert failed.returncode == 1
    assert f"cannot write in {home.state}/agents: No space left on device\n  next: free space" in failed.stderr
    assert len(failed.stdout.splitlines()) == 100
    small.free()
    assert [m["id"] for m in home.json("inbox", "bob")["messages"]] == ids
    assert home.meshctl("inbox", "bob") == ""


@needs_root
def test_a_full_disk_refuses_what_must_be_written_first(small: SmallDisk) -> None:
    """An entry of the ledger comes before its message: with no room for it, nothing is sent. Nor is a name hosted."""
    home = small.home
    small.start(home.state)
    home.meshctl("register", "alice")
    small.fill()

    def ask() -> subprocess.CompletedProcess[str] | None:
        done = home.run("send", "bob", "x" * 300, "--from", "alice", "-e", "--within", "1000")
        return done if done.returncode else None

    refused = wait_until(ask, "the disk refuses")
    assert refused.returncode == 1
    assert re.search(r"^cannot write in .*: No space left on device\n  next: free space", refused.stderr)
    new = home.run("register", "new")
    assert new.returncode == 1
    assert "No space left on device\n  next: " in new.stderr
    assert [a["name"] for a in home.json("status")["agents"]] == ["alice"]
    entries = len(home.json("pending", "alice")["entries"])
    small.free()
    home.meshctl("register", "new")
    assert len(home.json("inbox", "bob")["messages"]) == entries


@needs_root
def test_a_full_disk_under_the_notify_log_delays_lines_and_loses_none(small: SmallDisk) -> None:
    """The mail is received all the same; the lines come, each once, when there is room."""
    home = small.home
    small.start(home.cache)
    home.meshctl("register", "bob")
    small.fill()
    ids = [home.meshctl("send", "bob", "x" * 400, "--from", "alice").split()[1] for _ in range(20)]
    wait_until(lambda: "No space left on device" in home.log(), "the log tells of it")
    small.free()
    log = small._inside / "notify-bob.log"
    wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 20, "all lines are there")
    assert [line[-33:-1] for line in log.read_text().splitlines()] == ids
    assert [m["id"] for m in home.json("inbox", "bob")["messages"]] == ids


def test_a_hangup_reads_the_configuration_again(home: Home) -> None:
    """A good one counts from then on; a bad one changes nothing and is named; what needs a restart says so."""
    daemon = home.start()
    home.meshctl("register", "bob")
    configure(home, "max_message = 10\n")
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "configuration read again" in home.log(), "it was read")
    assert "over the limit of 10\n" in home.run("send", "bob", "eleven bytes").stderr

    configure(home, "max_message = 20\nmax_mesage = 30\n")
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: f"configuration not changed: {home.config}: unknown key 'max_mesage'" in home.log(), "refused")
    assert "over the limit of 10\n" in home.run("send", "bob", "eleven bytes").stderr
    done, as_json = home.run("reload"), home.run("reload", "--json")
    assert (done.returncode, done.stdout) == (as_json.returncode, "") == (1, "")
    what = f"not changed: {home.config}: unknown key 'max_mesage'"
    assert done.stderr == f"{what}\n  next: did you mean 'max_message'?\n"
    error = json.loads(as_json.stdout)["error"]
    assert (error["message"], error["data"]["kind"]) == (what, "config")

    configure(home, 'max_message = 20\nredis_url_file = "/elsewhere"\n')
    assert home.meshctl("reload") == "configuration read again; redis_url_file changes at the next start\n"
    configure(home, "max_message = 20\n")
    assert home.meshctl("reload") == "configuration read again\n"
    assert home.run("send", "bob", "eleven bytes").returncode == 0


def test_what_a_restart_needs_is_said_at_a_reload(server: Store, tmp_path: Path, prefix: str) -> None:
    with a_home(tmp_path / "h", server.url) as home:
        configure(home, f'prefix = "{prefix}"\n')
        home.start()
        home.meshctl("register", "bob")
        configure(home, 'prefix = "another"\n')
        assert home.meshctl("reload") == "configuration read again; prefix changes at the next start\n"
        home.meshctl("send", "bob", "hello", "--from", "alice")
        assert home.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"
