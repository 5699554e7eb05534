"""How a session ends: at once, with code 0, and with nothing left behind, whatever it was doing."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helper import Home, wait_until
from tests.helper.processes import alive
from tests.shim.client import HELLO, MESHCTL, Client
from tests.shim.conftest import Open
from tests.shim.daemon import children, gateway_pid, sessions_of

AT_ONCE = 1.0


def gone(pid: int) -> None:
    wait_until(lambda: not alive(pid), f"{pid} has ended", AT_ONCE)


def end_of_file(client: Client) -> None:
    assert client.process.stdin is not None
    client.process.stdin.close()


def closed_output(client: Client) -> None:
    """The client closes the end that it reads, and keeps the other one."""
    assert client.process.stdout is not None
    client.process.stdout.close()


def sigint(client: Client) -> None:
    client.process.send_signal(signal.SIGINT)


def sigterm(client: Client) -> None:
    client.process.send_signal(signal.SIGTERM)


ENDS = [end_of_file, sigint, sigterm, closed_output]
End = Callable[[Client], None]


def ends(client: Client, end: End) -> None:
    """It does so at once, with code 0 and nothing to say, and leaves no process behind."""
    began, left = time.monotonic(), children(client.process.pid)
    end(client)
    assert client.process.wait(AT_ONCE * 5) == 0
    took = time.monotonic() - began
    assert took < AT_ONCE, f"{took:.2f} s"
    assert client.errors() == ""
    wait_until(lambda: not any(map(alive, left)), "what it had started is gone", AT_ONCE)


@pytest.mark.parametrize("end", ENDS)
def test_an_idle_session_ends_and_is_a_session_no_more(mesh: Home, session: Open, name: str, end: End) -> None:
    alice = session(name, reads=False)
    assert sessions_of(mesh, name) == 1
    ends(alice, end)
    wait_until(lambda: sessions_of(mesh, name) == 0, "the session is gone")


@pytest.mark.parametrize("end", ENDS)
def test_waiting_calls_end_with_their_session(mesh: Home, session: Open, name: str, peer: str, end: End) -> None:
    """And take no mail with them."""
    alice = session(name, reads=False)
    for _ in range(3):
        alice.begin("mesh_listen_once", timeout_s=600)
    alice.begin("mesh_request", to=peer, message="well?", timeout_s=600)
    wait_until(lambda: sessions_of(mesh, name) == 4, "they wait")
    ends(alice, end)
    wait_until(lambda: sessions_of(mesh, name) == 0, "the session is gone")
    mesh.meshctl("send", name, "hello", "--from", peer)
    assert [message["text"] for message in mesh.json("inbox", name)["messages"]] == ["hello"]


def test_sessions_end_while_the_daemon_is_away(own: Home, own_session: Open) -> None:
    """In the middle of their pause between two attempts, with a request open."""
    own.start()
    clients = {own_session(end.__name__, reads=False, AGENT_MESH_NO_AUTOSTART="1"): end for end in ENDS}
    own.kill()
    for client, end in clients.items():
        client.begin("mesh_who")
        ends(client, end)


# A session without a client, which is forked for each of its steps until its first wait, and gets a signal there. Says
# in how many, and by which the process did not end as it should.
AT_EACH_STEP = """
import os, signal, socket, sys
from meshctl import client, shim
from meshctl.shim import reaching
from meshd import paths

def traced(frame, event, argument):
    global begun, left
    if frame.f_code.co_filename not in (client.__file__, shim.__file__, reaching.__file__):
        return None
    frame.f_trace_opcodes = begun = begun or frame.f_code.co_name == "_reach"  # signals are ours from there on
    if begun and event == "opcode":
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGTERM)
    return traced

listener = socket.socket(socket.AF_UNIX)
for find in sys.argv[1:]:  # where somebody listens, and never answers
    path = getattr(paths, find)()
    os.makedirs(os.path.dirname(path), mode=0o700)
    listener.bind(path)
    listener.listen(4096)
begun = False
step, code = 0, 0
while code != 100:
    step = left = step + 1
    if (pid := os.fork()) == 0:
        sys._getframe().f_trace_opcodes = True  # before: 3.12 looks for it only now
        sys.settrace(traced)
        code = shim.run()
        sys.settrace(None)
        os._exit(100 if left > 0 and code == 0 else code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, 100):
        print(f"step {step}: exit code {code}", file=sys.stderr)
listener.close()
print(step)
"""


@pytest.mark.parametrize("listens", [(), ("socket_path",), ("gateway_socket_path",)])
def test_a_signal_at_any_step_leaves_nothing_open(own: Home, listens: tuple[str, ...]) -> None:
    """Such as between making a socket and keeping it: it says so on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EACH_STEP, *listens],
        env=own.env | {"AGENT_MESH_NO_AUTOSTART": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 200


@contextlib.contextmanager
def starting_takes_long(home: Home) -> Iterator[None]:
    """Somebody else is about to start the daemon: whoever wants to, too, waits for that."""
    os.makedirs(os.path.dirname(home.socket), mode=0o700)
    with open(home.socket + ".start", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_sessions_end_in_the_middle_of_starting_the_daemon(own: Home, tmp_path: Path) -> None:
    with starting_takes_long(own):
        for end in ENDS:
            with contextlib.closing(Client(own, tmp_path / "alice", reads=False)) as client:
                client.request("initialize", HELLO)
                wait_until(functools.partial(children, client.process.pid), "it starts the daemon")
                ends(client, end)
    assert own.run("status").returncode == 3


def test_sessions_end_while_the_gateway_does_not_answer(own: Home, own_session: Open) -> None:
    own.start()
    clients = {own_session(end.__name__, reads=False): end for end in ENDS}
    gateway = gateway_pid(own)
    os.kill(gateway, signal.SIGSTOP)
    for client, end in clients.items():
        client.begin("mesh_who")
        ends(client, end)
    os.kill(gateway, signal.SIGCONT)
    wait_until(lambda: not any(sessions_of(own, end.__name__) for end in ENDS), "the sessions are gone")
    assert own.stop() == 0
    assert "Traceback" not in own.log(), "that nobody waits for the answers any more is no failure"


def test_a_session_ends_with_the_client_that_is_killed(mesh: Home, tmp_path: Path, name: str) -> None:
    """Nothing but the end of its pipes tells it so."""
    script = (
        "import subprocess, sys; "
        "p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE); "
        "print(p.pid, flush=True); p.wait()"
    )
    env = {k: v for k, v in mesh.env.items() if not k.startswith("CLAUDE")} | {"AGENT_MESH_NAME": name}
    parent = subprocess.Popen([sys.executable, "-c", script, *MESHCTL], env=env, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    shim = int(parent.stdout.readline())
    wait_until(lambda: sessions_of(mesh, name) == 1, "the session is open")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone(shim)
    wait_until(lambda: sessions_of(mesh, name) == 0, "the session is gone")


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM,) * 20])
def test_further_signals_change_nothing(session: Open, name: str, numbers: tuple[signal.Signals, ...]) -> None:
    """A client that is in a hurry sends the next one before the first had its effect."""
    alice = session(name, reads=False)
    alice.pause()
    for number in numbers:
        alice.process.send_signal(number)
    alice.resume()
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            alice.process.send_signal(number)
    assert alice.process.wait(AT_ONCE) == 0
    assert alice.errors() == ""


def test_the_gateway_ends_with_the_daemon(own: Home, own_session: Open) -> None:
    """However the daemon ends; a gateway without one would hold the socket of the next."""
    own.start()
    own_session("alice", AGENT_MESH_NO_AUTOSTART="1")
    for end in (own.kill, own.stop):
        gateway = gateway_pid(own)
        end()
        gone(gateway)
        own.start()
