"""inbox, listen and monitor: how mail is handed to a terminal or a program."""

from __future__ import annotations

import json

import pytest

from tests.cli.running import running
from tests.helper import Home, wait_until


def attached(home: Home, name: str) -> bool:
    """Whether a session listens for the name."""
    with home.rpc() as rpc:
        return any(agent["name"] == name and agent["sessions"] for agent in rpc.call("status")["agents"])


def test_an_inbox_is_oldest_first_and_read_once(home: Home) -> None:
    home.start()
    for text in ("one", "two", "three"):
        home.meshctl("send", "bob", text, "--from", "alice")
    assert home.meshctl("inbox", "bob").splitlines() == [f"[DIRECT from alice] {t}" for t in ("one", "two", "three")]
    again = home.run("inbox", "bob")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "(no unread messages)\n")


def test_a_peek_leaves_everything_unread_and_claims_no_more_than_there_is(mesh: Home, name: str) -> None:
    for text in ("one", "two"):
        mesh.meshctl("send", name, text)
    for _ in range(2):
        peeked = mesh.run("inbox", name, "--peek")
        assert peeked.stdout == "[DIRECT from cli] one\n[DIRECT from cli] two\n"
        assert peeked.stderr == ""
    assert mesh.run("inbox", name, "--peek", "--limit", "1").stderr == f"1 more: meshctl inbox {name}\n"
    assert len(mesh.json("inbox", name)["messages"]) == 2


def test_a_limit_takes_the_oldest_and_says_how_many_are_left(mesh: Home, name: str) -> None:
    for k in range(5):
        mesh.meshctl("send", name, f"m{k}")
    first = mesh.run("inbox", name, "--limit", "2")
    assert first.stdout == "[DIRECT from cli] m0\n[DIRECT from cli] m1\n"
    assert first.stderr == f"3 more: meshctl inbox {name}\n"
    rest = mesh.json("inbox", name, "--limit", "10")
    assert [m["text"] for m in rest["messages"]] == ["m2", "m3", "m4"]
    assert (rest["unread"], rest["lost"]) == (0, 0)


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "many"])
def test_a_senseless_limit_is_refused(mesh: Home, name: str, limit: str) -> None:
    mesh.meshctl("send", name, "kept")
    done = mesh.run("inbox", name, "--limit", limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert "limit" in done.stderr
    assert "next: " in done.stderr
    assert mesh.meshctl("inbox", name) == "[DIRECT from cli] kept\n"


def test_megabytes_of_unread_mail_are_shown_in_parts(mesh: Home, name: str) -> None:
    """However much is unread, peeking and reading work, and each message is read exactly once."""
    with mesh.rpc() as rpc:
        for k in range(100):
            rpc.send("send", target=name, message=f"{k:03}" + "x" * 60_000, from_="big")
        for _ in range(100):
            assert "result" in rpc.read()
    peeked = mesh.run("inbox", name, "--peek")
    assert peeked.returncode == 0, peeked.stderr
    assert peeked.stdout.startswith("[DIRECT from big] 000xxx")
    read: list[str] = []
    while part := mesh.json("inbox", name)["messages"]:
        read += [message["text"][:3] for message in part]
    assert read == [f"{k:03}" for k in range(100)]


def test_listen_gives_the_oldest_unread_message_and_only_that(home: Home) -> None:
    home.start()
    for text in ("one", "two"):
        home.meshctl("send", "bob", text, "--from", "alice")
    assert home.meshctl("listen", "bob", "--timeout", "10") == "[DIRECT from alice] one\n"
    assert home.meshctl("inbox", "bob") == "[DIRECT from alice] two\n"


def test_listen_returns_on_the_first_direct_message_that_comes(mesh: Home, name: str) -> None:
    with running(mesh, "listen", name, "--timeout", "20") as listening:
        wait_until(lambda: attached(mesh, name), "listen is attached")
        mesh.meshctl("send", name, "hello", "--from", "alice")
        assert listening.end() == (0, "[DIRECT from alice] hello\n", "")
    assert mesh.meshctl("inbox", name) == ""


def test_listen_shows_group_traffic_while_it_waits(mesh: Home, name: str, peer: str) -> None:
    """Broadcasts, and what others say to each other in the open, come as GROUP; private mail of others does not."""
    with running(mesh, "listen", name, "--timeout", "20") as listening:
        wait_until(lambda: attached(mesh, name), "listen is attached")
        mesh.meshctl("send", peer, "unseen", "--private", "--from", "alice")
        mesh.meshctl("send", peer, "to another", "--from", "alice")
        assert listening.line() == "[GROUP from alice] to another"
        mesh.meshctl("broadcast", "to all", "--from", "alice")
        assert listening.line() == "[GROUP from alice] to all"
        mesh.meshctl("send", name, "to you", "--from", "alice")
        assert listening.end() == (0, "[DIRECT from alice] to you\n", "")
    assert mesh.meshctl("inbox", name) == ""


def test_what_was_said_before_listen_waited_is_not_group_traffic_seen_while_waiting(home: Home) -> None:
    """A daemon that starts reads the group from where its agents were; whoever waits hears what comes from now on."""
    home.meshctl("register", "bob")
    for n in range(3):
        home.meshctl("send", "bob", f"before {n}", "--from", "al")
    for _ in range(3):
        home.meshctl("down")
        assert home.run("listen", "carol", "--timeout", "1").stdout == ""  # and starts the daemon
    with running(home, "listen", "carol", "--timeout", "20") as listening:
        wait_until(lambda: attached(home, "carol"), "listen is attached")
        home.meshctl("send", "bob", "after", "--from", "al")
        assert listening.line() == "[GROUP from al] after"
        home.meshctl("deregister", "bob")
        home.meshctl("register", "bob")  # which reads what it has missed of the group
        home.meshctl("send", "carol", "done", "--from", "al")
        assert listening.end() == (0, "[DIRECT from al] done\n", "")


def test_a_monitor_that_outlives_its_daemon_repeats_nothing(home: Home) -> None:
    home.start()
    home.meshctl("register", "bob")
    home.meshctl("send", "bob", "before", "--from", "al")
    with running(home, "monitor", "eve") as monitor:
        wait_until(lambda: attached(home, "eve"), "it is attached")
        home.meshctl("send", "bob", "meanwhile", "--from", "al")
        assert monitor.line() == "[GROUP from al] meanwhile"
        home.kill()
        home.start()
        wait_until(lambda: attached(home, "eve"), "it is attached again")
        home.meshctl("send", "eve", "to you", "--from", "al")
        assert monitor.line() == "[DIRECT from al] to you"


def test_listen_times_out_with_exit_code_1_and_says_so_on_standard_error(mesh: Home, name: str) -> None:
    done = mesh.run("listen", name, "--timeout", "0.2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"timeout: no message for {name} within 0.2 s\n"
    as_json = mesh.run("listen", name, "--timeout", "0.2", "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["error"]["data"]["kind"] == "timeout"


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "soon"])
def test_a_senseless_timeout_is_refused(mesh: Home, name: str, timeout: str) -> None:
    done = mesh.run("listen", name, f"--timeout={timeout}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "timeout" in done.stderr
    assert "next: " in done.stderr


def test_listen_follow_goes_on_until_its_time_is_up(mesh: Home, name: str) -> None:
    mesh.meshctl("send", name, "before")
    with running(mesh, "listen", name, "--follow", "--timeout", "3") as listening:
        assert listening.line() == "[DIRECT from cli] before"
        mesh.meshctl("send", name, "after")
        assert listening.line() == "[DIRECT from cli] after"
        code, out, err = listening.end()
    assert (code, out) == (1, "")
    assert err.startswith("timeout: ")
    assert mesh.meshctl("inbox", name) == ""


def test_listen_as_json_is_json_lines(mesh: Home, name: str) -> None:
    with running(mesh, "listen", name, "--json", "--timeout", "20") as listening:
        wait_until(lambda: attached(mesh, name), "listen is attached")
        mesh.meshctl("broadcast", "to all", "--from", "alice")
        assert json.loads(listening.line())["kind"] == "broadcast"
        mesh.meshctl("send", name, "to you", "--from", "alice")
        last = json.loads(listening.line())
        assert (last["name"], last["message"]["from"], last["message"]["text"]) == (name, "alice", "to you")
        assert listening.end() == (0, "", "")


def test_a_stealthy_listen_shows_up_nowhere(mesh: Home, name: str) -> None:
    """A name that only a stealthy listen hosts is not in `who`, and no session shows; mail comes all the same."""
    with running(mesh, "listen", name, "--stealth", "--timeout", "20") as listening:
        wait_until(lambda: name in mesh.meshctl("status"), "the name is hosted")
        assert name not in mesh.meshctl("who")
        assert not attached(mesh, name)
        mesh.meshctl("send", name, "psst")
        assert listening.end()[:2] == (0, "[DIRECT from cli] psst\n")


def test_a_message_that_expects_a_reply_says_how_on_standard_error(mesh: Home, name: str, peer: str) -> None:
    sent = mesh.meshctl("send", name, "well?", "--from", peer, "--expect-reply").split()[1]
    done = mesh.run("inbox", name)
    assert done.stdout == f"[DIRECT from {peer}] well?\n"
    assert done.stderr == f"  {peer} waits for a reply: meshctl reply {sent} TEXT --from {name}\n"
    mesh.meshctl("reply", sent, "yes", "--from", name)


def test_a_monitor_stays_and_prints_as_listen_does(mesh: Home, name: str) -> None:
    mesh.meshctl("send", name, "before", "--from", "alice")
    with running(mesh, "monitor", name) as monitor:
        assert monitor.line() == "[DIRECT from alice] before"
        mesh.meshctl("send", name, "now", "--from", "alice")
        mesh.meshctl("broadcast", "all", "--from", "alice")
        assert sorted(monitor.lines(2)) == ["[DIRECT from alice] now", "[GROUP from alice] all"]
        wait_until(lambda: mesh.json("inbox", name, "--peek")["messages"] == [], "what was printed is read")


def test_a_second_monitor_says_so_and_exits_0(mesh: Home, name: str) -> None:
    with running(mesh, "monitor", name) as monitor:
        wait_until(lambda: attached(mesh, name), "the monitor is attached")
        assert mesh.meshctl("monitor", name) == f"monitor already running for {name}\n"
        assert mesh.json("monitor", name) == {"name": name, "already": True}
        monitor.kill()
    wait_until(lambda: not attached(mesh, name), "the monitor's place is free")
    with running(mesh, "monitor", name) as monitor:
        mesh.meshctl("send", name, "hello")
        assert monitor.line() == "[DIRECT from cli] hello"


def test_a_stealthy_monitor_shows_no_session(mesh: Home, name: str) -> None:
    with running(mesh, "monitor", name, "--stealth") as monitor:
        mesh.meshctl("send", name, "psst")
        assert monitor.line() == "[DIRECT from cli] psst"
        assert not attached(mesh, name)
        assert name not in mesh.meshctl("who")


@pytest.mark.parametrize("command", [("monitor",), ("listen", "--timeout", "60"), ("watch",)])
def test_what_waits_for_a_name_ends_when_the_name_is_given_up(mesh: Home, name: str, command: tuple[str, ...]) -> None:
    """A wait that can bring nothing any more says so, and does not bring the name back by itself."""
    with running(mesh, command[0], name, *command[1:]) as waiting:
        wait_until(lambda: attached(mesh, name), "it is attached")
        mesh.meshctl("deregister", name)
        code, out, err = waiting.end()
    assert (code, out) == (5, "")
    assert f"{name} was deregistered" in err
    assert name not in mesh.meshctl("status")


def test_a_question_that_is_overheard_asks_nothing_of_a_bystander(mesh: Home, name: str, peer: str) -> None:
    """A monitor prints how to reply to what its agent is asked, and nothing of the kind for what another is asked."""
    with running(mesh, "monitor", name) as monitor:
        wait_until(lambda: attached(mesh, name), "the monitor is attached")
        mesh.meshctl("send", peer, "for another", "--from", "alice", "-e")
        sent = mesh.meshctl("send", name, "for you", "--from", "alice", "-e").split()[1]
        assert sorted(monitor.lines(2)) == ["[DIRECT from alice] for you", "[GROUP from alice] for another"]
        mesh.meshctl("deregister", name)
        _, _, err = monitor.end()
    assert err.startswith(f"  alice waits for a reply: meshctl reply {sent} TEXT --from {name}\n{name} was dereg")
    for owed in (name, peer):
        mesh.meshctl("ack", owed, "never mind", "--from", "alice")
