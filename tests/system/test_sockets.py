"""What the kernel tells of the other end of a socket."""

from __future__ import annotations

import os
import socket
import struct
import sys

import pytest

from meshd.system import sockets
from tests.helper import wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell")


def test_the_peer_of_a_unix_socket_is_its_user() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert sockets.peer_uid(ours) == os.geteuid()


@linux
def test_what_a_peer_has_not_read_is_untaken() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert sockets.untaken(ours.fileno()) == 0
        ours.sendall(b"x" * 1000)
        assert sockets.untaken(ours.fileno()) > 0
        theirs.recv(1000)
        assert sockets.untaken(ours.fileno()) == 0


@linux
def test_a_tcp_connection_is_well_until_it_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
        with ours, theirs:
            ours.sendall(b"hello")
            wait_until(lambda: sockets.untaken(ours.fileno()) == 0, "the other end has acknowledged it")
            assert sockets.tcp_is_well(ours)
            # A close with a linger of nothing is a reset.
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            theirs.close()
            wait_until(lambda: not sockets.tcp_is_well(ours), "the reset has come")


def test_a_half_closed_unix_socket_has_not_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not sockets.has_gone(ours.fileno())
        theirs.shutdown(socket.SHUT_WR)
        assert not sockets.has_gone(ours.fileno())
        theirs.close()
        assert sockets.has_gone(ours.fileno())
