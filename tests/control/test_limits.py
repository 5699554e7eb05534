"""What one client may take: bounded in every direction, and never at the cost of another."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path

import pytest

from tests.helper import Home, wait_until


def memory(home: Home) -> int:
    """Resident bytes of the daemon."""
    assert home.daemon is not None
    return int(Path(f"/proc/{home.daemon.pid}/statm").read_text().split()[1]) * 4096


def test_a_line_without_an_end_is_refused_and_the_connection_closed(mesh: Home) -> None:
    with mesh.rpc() as rpc, mesh.rpc() as witness:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it closes before all was sent
            rpc.raw(b"x" * (2 << 20))
        error = rpc.read()["error"]
        assert error["code"] == -32700
        assert error["message"] == "a line is longer than 1048576 bytes"
        with pytest.raises((EOFError, ConnectionResetError)):
            rpc.read()
        assert witness.call("hello")


def test_a_long_line_with_an_end_is_refused_too(mesh: Home) -> None:
    with mesh.rpc() as rpc:
        line = json.dumps({"id": 1, "method": "hello", "pad": "x" * (1 << 20)}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            rpc.raw(line)
        assert rpc.read()["error"]["code"] == -32700


def test_a_line_just_under_the_limit_is_read(mesh: Home) -> None:
    with mesh.rpc() as rpc:
        line = json.dumps({"id": 1, "method": "hello", "pad": ""}).encode()
        rpc.raw(line[:-2] + b"x" * ((1 << 20) - len(line)) + line[-2:] + b"\n")
        assert rpc.read()["id"] == 1


def test_a_line_may_come_byte_by_byte(mesh: Home) -> None:
    with mesh.rpc() as rpc:
        for byte in b'{"id":1,"method":"hello"}\n{"id":2,"method":"hello"}\n':
            rpc.raw(bytes([byte]))
        assert [rpc.read()["id"], rpc.read()["id"]] == [1, 2]


def test_a_thousand_requests_without_reading_are_all_answered_in_the_end(mesh: Home) -> None:
    """The client that does not read is not read from; the daemon's memory stays, and others are answered at once."""
    count = 1000
    before = memory(mesh)
    with mesh.rpc() as greedy, mesh.rpc() as witness:
        requests = b"".join(b'{"id":%d,"method":"status"}\n' % k for k in range(1, count + 1))
        # In a thread: the daemon stops reading before all of them are written.
        writer = threading.Thread(target=greedy.raw, args=(requests,))
        writer.start()
        started = time.monotonic()
        assert witness.call("hello")
        assert time.monotonic() - started < 5
        assert memory(mesh) - before < 64 << 20
        assert sorted(greedy.read()["id"] for _ in range(count)) == list(range(1, count + 1))
        writer.join()


def test_large_answers_that_nobody_reads_yet_are_all_kept(lone: Home) -> None:
    """A slow reader is waited for, not cut: every answer comes whole, however large they are together."""
    lone.start()
    count = 600
    with lone.rpc() as rpc:
        for k in range(150):
            rpc.call("register", name=f"agent-{k}")
        size = len(json.dumps(rpc.call("status")))
        before = memory(lone)
        requests = b"".join(b'{"id":%d,"method":"status"}\n' % k for k in range(1000, 1000 + count))
        writer = threading.Thread(target=rpc.raw, args=(requests,))
        writer.start()
        with lone.rpc() as witness:
            assert witness.call("hello")
        assert memory(lone) - before < 300 * size + (64 << 20)
        assert size * 256 > 4 << 20
        assert sorted(rpc.read()["id"] for _ in range(count)) == list(range(1000, 1000 + count))
        writer.join()


def test_a_client_that_never_reads_does_not_stop_the_others(mesh: Home, name: str) -> None:
    """It asks until its own socket is full; the daemon neither grows nor waits."""
    before = memory(mesh)
    with mesh.rpc() as greedy:
        greedy.socket.settimeout(1)
        with contextlib.suppress(TimeoutError, BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                greedy.raw(b'{"id":1,"method":"status"}\n' * 500)
        mesh.meshctl("send", name, "hello")
        assert mesh.meshctl("inbox", name) == "[DIRECT from cli] hello\n"
        assert memory(mesh) - before < 64 << 20


def test_hundreds_of_silent_clients_are_no_trouble(mesh: Home) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(mesh.rpc())
        with mesh.rpc() as rpc:
            assert rpc.call("hello")


def test_more_waiting_calls_than_allowed_wait_their_turn(mesh: Home, name: str) -> None:
    """256 calls of a client run at once; the next is begun when one has ended."""
    with mesh.rpc() as rpc:
        for k in range(256):
            rpc.send("listen", name=f"{name}-{k % 4}", timeout=1.0)
        last = rpc.send("hello")
        ids = [rpc.read()["id"] for _ in range(257)]
    assert sorted(ids) == list(range(1, 258))
    assert ids[0] != last


def test_a_client_that_goes_in_mid_call_leaves_no_session_behind(mesh: Home, name: str) -> None:
    def sessions() -> int:
        return sum(a["sessions"] for a in mesh.json("status")["agents"] if a["name"] == name)

    with mesh.rpc() as rpc:
        for _ in range(3):
            rpc.send("listen", name=name, timeout=60)
        wait_until(lambda: sessions() == 3, "three sessions")
    wait_until(lambda: sessions() == 0, "none is left")


def test_a_client_that_half_closes_and_then_goes_leaves_no_session_behind(mesh: Home, name: str) -> None:
    def sessions() -> int:
        return sum(a["sessions"] for a in mesh.json("status")["agents"] if a["name"] == name)

    with mesh.rpc() as rpc:
        rpc.send("monitor", name=name)
        wait_until(lambda: sessions() == 1, "it is attached")
        rpc.socket.shutdown(1)
        assert rpc.socket.gettimeout()
        mesh.meshctl("send", name, "still heard")
        assert rpc.read()["params"]["item"]["text"] == "still heard"
    wait_until(lambda: sessions() == 0, "it is gone")
