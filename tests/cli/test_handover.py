"""Read means read: a client that dies before it has written the mail down leaves it unread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.cli.running import running
from tests.helper import Home, wait_until

# More than a pipe holds, so that a writer whose reader is asleep stands still in the middle of the message.
LONG = "x" * 65_530 + " [end]"
READERS = [("listen", "bob", "--timeout", "60"), ("inbox", "bob"), ("monitor", "bob"), ("inbox", "bob", "--json")]


def unread(home: Home, name: str = "bob") -> list[str]:
    return [message["text"] for message in home.json("inbox", name, "--peek")["messages"]]


def free_to_take(home: Home, name: str = "bob") -> bool:
    """Whether the oldest unread message of the name is in nobody's hands; puts it back."""
    with home.rpc() as rpc:
        return bool(rpc.call("inbox", name=name, limit=1, ack="explicit")["messages"])


def start_with_mail(home: Home, text: str) -> None:
    home.start()
    home.meshctl("send", "bob", "-", "--from", "alice", stdin=text)


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_mail_of_a_client_that_is_killed_while_it_prints_stays_unread(home: Home, command: tuple[str, ...]) -> None:
    start_with_mail(home, LONG)
    with running(home, *command) as client:
        os.read(client.process.stdout.fileno(), 1)  # type: ignore[union-attr]  # it prints
        client.kill()
    wait_until(lambda: free_to_take(home), "the mail can be taken again")
    assert unread(home) == [LONG]


@pytest.mark.parametrize("command", READERS[:3], ids=" ".join)
def test_mail_of_a_client_whose_output_is_a_full_disk_stays_unread(home: Home, command: tuple[str, ...]) -> None:
    start_with_mail(home, "hello")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "meshctl", *command], env=home.env, stdout=full, stderr=subprocess.PIPE, timeout=30
        )
    assert done.returncode == 1
    assert b"No space left on device; what was not written stays unread" in done.stderr
    wait_until(lambda: free_to_take(home), "the mail can be taken again")
    assert home.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"


@pytest.mark.parametrize("command", READERS[:3], ids=" ".join)
def test_mail_of_a_client_whose_output_has_no_reader_stays_unread(home: Home, command: tuple[str, ...]) -> None:
    start_with_mail(home, "hello")
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run([sys.executable, "-m", "meshctl", *command], env=home.env, stdout=theirs, timeout=30)
    os.close(theirs)
    assert done.returncode == 128 + signal.SIGPIPE
    wait_until(lambda: free_to_take(home), "the mail can be taken again")
    assert home.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"


@pytest.mark.parametrize("closed", ["1>&-", "1>&- 2>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"])
def test_mail_of_a_client_with_no_standard_output_at_all_stays_unread(home: Home, closed: str) -> None:
    """A closed descriptor must not become the socket, which would swallow the mail as if it was printed."""
    start_with_mail(home, "hello")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "meshctl", "inbox", "bob"],
        env=home.env,
        timeout=30,
    )
    assert done.returncode == 1
    wait_until(lambda: free_to_take(home), "the mail can be taken again")
    assert home.meshctl("inbox", "bob") == "[DIRECT from alice] hello\n"


def test_what_a_monitor_printed_before_it_was_killed_is_read_and_the_rest_is_not(home: Home) -> None:
    start_with_mail(home, "first")
    with running(home, "monitor", "bob") as monitor:
        assert monitor.line() == "[DIRECT from alice] first"
        wait_until(lambda: unread(home) == [], "the first is confirmed")
        home.meshctl("send", "bob", "-", "--from", "alice", stdin=LONG)
        os.read(monitor.process.stdout.fileno(), 1)  # type: ignore[union-attr]
        monitor.kill()
    wait_until(lambda: free_to_take(home), "the mail can be taken again")
    assert unread(home) == [LONG]


def test_a_listening_client_that_is_killed_takes_nothing_with_it(home: Home) -> None:
    """Mail that comes after the kill goes to the next reader, and the session is gone from `who`."""
    home.start()
    with running(home, "listen", "bob", "--timeout", "60") as client:
        wait_until(
            lambda: home.json("who")["agents"][0:] and home.json("who")["agents"][0]["session"], "it is attached"
        )
        client.kill()
    wait_until(lambda: not home.json("who")["agents"][0]["session"], "the session is gone")
    home.meshctl("send", "bob", "hello", "--from", "alice")
    assert home.meshctl("listen", "bob", "--timeout", "10") == "[DIRECT from alice] hello\n"


def test_a_stopped_client_holds_its_message_and_gives_it_back_when_it_dies(home: Home) -> None:
    """While one client prints a message no other gets it; the one behind it can be read meanwhile."""
    start_with_mail(home, LONG)
    home.meshctl("send", "bob", "second", "--from", "alice")
    with running(home, "inbox", "bob", "--limit", "1") as client:
        os.read(client.process.stdout.fileno(), 1)  # type: ignore[union-attr]
        assert home.meshctl("inbox", "bob") == "[DIRECT from alice] second\n"
        client.kill()
    wait_until(lambda: free_to_take(home), "the mail can be taken again")
    assert unread(home) == [LONG]


def test_the_daemon_killed_while_a_client_prints_hands_the_mail_over_again(home: Home) -> None:
    """The client goes on with the next daemon. The unconfirmed message comes again rather than never."""
    start_with_mail(home, LONG)
    with running(home, "monitor", "bob") as monitor:
        os.read(monitor.process.stdout.fileno(), 1)  # type: ignore[union-attr]
        home.kill()
        home.start()
        first, again = monitor.lines(2)
        assert first.endswith("[end]")
        assert again == f"[DIRECT from alice] {LONG}"
        wait_until(lambda: unread(home) == [], "it is confirmed in the end")
