"""watch: the notify log as it comes, with nothing missed between two watches."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.cli.running import running
from tests.helper import Home, wait_until


def test_a_watch_prints_the_notify_lines_as_they_come(mesh: Home, name: str) -> None:
    mesh.meshctl("register", name)
    with running(mesh, "watch", name) as watch:
        first = mesh.meshctl("send", name, "one", "--from", "alice").split()[1]
        # The first line ever tells of what is unread already, if the watch began after the message.
        line = watch.line()
        assert line in (f"📨 alice: one [{first}]", f"📨 1 unread from alice: meshctl inbox {name}")
        second = mesh.meshctl("broadcast", "two", "--from", "alice").split()[1]
        assert watch.line() == f"📢 alice: two [{second}]"
    assert len(mesh.json("inbox", name)["messages"]) == 2  # a watch is a wake, not a read


def test_the_first_watch_says_how_much_is_unread_instead_of_the_whole_past(mesh: Home, name: str) -> None:
    for sender in ("alice", "carol", "alice"):
        mesh.meshctl("send", name, "old", "--from", sender)
    mesh.meshctl("register", name)
    assert mesh.meshctl("watch", name, "--timeout", "1") == f"📨 3 unread from alice, carol: meshctl inbox {name}\n"


def test_a_line_that_is_written_later_than_its_message_is_received_is_told_then(home: Home) -> None:
    """As it is always by a moment, and here by as long as the log's folder is not there."""
    home.start()
    home.meshctl("watch", "bob", "--timeout", "0.3")
    log = home.cache / "notify-bob.log"
    with running(home, "watch", "bob") as watch:
        first = home.meshctl("send", "bob", "one", "--from", "alice").split()[1]
        assert watch.line() == f"📨 alice: one [{first}]"
        log.unlink()
        log.symlink_to(home.path / "missing" / "log")
        second = home.meshctl("send", "bob", "two", "--from", "alice").split()[1]
        wait_until(lambda: home.json("status")["agents"][0]["trouble"], "its line cannot be written")
        (home.path / "missing").mkdir()
        assert watch.line() == f"📨 alice: two [{second}]"


def test_what_the_first_watch_tells_as_unread_is_not_told_again_by_its_line(home: Home) -> None:
    """The lines of what was received are written after it, and here not before the log's folder is there."""
    home.start()
    log = home.cache / "notify-bob.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.symlink_to(home.path / "missing" / "log")
    home.meshctl("register", "bob")
    first = home.meshctl("send", "bob", "one", "--from", "alice").split()[1]
    with running(home, "watch", "bob") as watch:
        assert watch.line() == "📨 1 unread from alice: meshctl inbox bob"
        log.unlink()
        wait_until(lambda: first in "".join(home.notify_lines("bob")), "the line is written")
        second = home.meshctl("send", "bob", "two", "--from", "alice").split()[1]
        assert watch.line() == f"📨 alice: two [{second}]"


def test_between_two_watches_nothing_is_missed_and_nothing_comes_twice(home: Home) -> None:
    """Whether the watch ended by itself or was killed, and whether the daemon was restarted in between."""
    home.start()
    home.meshctl("watch", "bob", "--timeout", "0.3")
    ids: list[str] = []

    def send() -> str:
        ids.append(home.meshctl("send", "bob", f"m{len(ids)}", "--from", "alice").split()[1])
        return f"📨 alice: m{len(ids) - 1} [{ids[-1]}]"

    missed = [send(), send()]
    with running(home, "watch", "bob") as watch:
        assert watch.lines(2) == missed
        seen = send()
        assert watch.line() == seen
        wanted = send()
        assert watch.line() == wanted
        watch.kill()
    missed = [send()]
    home.kill()
    home.start()
    missed.append(send())
    # The line before the kill may not have been confirmed: it comes again rather than never.
    with running(home, "watch", "bob") as watch:
        line = watch.line()
        assert [line if line != wanted else watch.line(), watch.line()] == missed


def test_a_watch_that_is_killed_before_it_printed_leaves_the_lines_for_the_next(home: Home) -> None:
    home.start()
    home.meshctl("watch", "bob", "--timeout", "0.3")
    done = home.run("send", "bob", "hello", "--from", "alice")
    with open("/dev/full", "w") as full:
        failed = subprocess.run(
            [sys.executable, "-m", "meshctl", "watch", "bob"],
            env=home.env,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
        )
    assert failed.returncode == 1
    with running(home, "watch", "bob") as watch:
        assert watch.line() == f"📨 alice: hello [{done.stdout.split()[1]}]"


def test_a_flood_becomes_few_lines_that_count_every_message(mesh: Home, name: str) -> None:
    """No line is lost among the gathered ones: the numbers add up."""
    mesh.meshctl("watch", name, "--timeout", "0.3")
    count = 400
    with running(mesh, "watch", name) as watch:
        with mesh.rpc() as rpc:
            for k in range(count):
                rpc.send("send", target=name, message=f"m{k}", from_="flood")
            for _ in range(count):
                assert "result" in rpc.read()
        lines, told = 0, 0
        while told < count:
            line = watch.line()
            burst = re.fullmatch(rf"📨 (\d+) messages from flood: meshctl inbox {name}", line)
            told += int(burst[1]) if burst else 1
            lines += 1
        assert told == count
        assert lines < 40


def test_a_watch_as_json_is_json_lines_and_nothing_else(mesh: Home, name: str) -> None:
    mesh.meshctl("watch", name, "--timeout", "0.3")
    sent = mesh.meshctl("send", name, "hello", "--from", "alice").split()[1]
    out = mesh.meshctl("watch", name, "--timeout", "1", "--json")
    assert [json.loads(line) for line in out.splitlines()] == [{"line": f"📨 alice: hello [{sent}]"}]
    assert out.isascii()
