"""State files carry a version: those of older programs load, those of newer ones are refused and left as they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd.core import records
from meshd.disk import hosted, logcursor
from meshd.hosting import session_names
from tests.helper import Home, Rpc, a_home, wait_until

OLD = sorted(path.name for path in Path(__file__).parent.iterdir() if re.fullmatch(r"[0-9.]+", path.name))


def put(version: str, home: Home) -> None:
    """The files of a home that ran that version, as it left them; private again, which git does not keep."""
    for folder, to in (("state", home.state), ("cache", home.cache)):
        shutil.copytree(Path(__file__).parent / version / folder, to)
        for top, _, files in os.walk(to):
            os.chmod(top, 0o700)
            for file in files:
                os.chmod(os.path.join(top, file), 0o600)


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest, lone: Home) -> Home:
    put(request.param, lone)
    return lone


def ids(home: Home, name: str) -> list[str]:
    return [message["id"] for message in home.json("inbox", name, "--peek")["messages"]]


def test_agents_mail_and_ledgers_of_an_older_version_load(old: Home) -> None:
    """Who is hosted and as what, what is unread, what is owed, from a compacted journal, too; none comes twice."""
    old.start()
    old.meshctl("up")
    wait_until(lambda: {a["state"] for a in old.json("status")["agents"]} == {"receiving"}, "all receive")
    found = {agent["name"]: agent for agent in old.json("status")["agents"]}
    assert sorted(found) == ["bob", "builder", "carol", "eve", "tester", "watchdog"]
    assert found["bob"]["role"] == "reviewer"
    assert "eve" not in [agent["agent"] for agent in old.json("who")["agents"]], "it is hidden"
    assert ids(old, "bob")[:2] == ["m1", "m2"]
    assert ids(old, "bob")[3:] == ["m3", "910e2bfc94b5d018a457546a9af4dcdc"]
    assert ids(old, "carol") == ["last"]
    assert [entry["id"] for entry in old.json("pending", "bob")["entries"]] == ["open", "hurry"]
    assert [entry["id"] for entry in old.json("pending", "carol")["entries"]] == ["carols"]
    assert old.json("status")["ok"]
    old.meshctl("send", "bob", "new", "--from", "alice", "--id", "new")
    wait_until(lambda: ids(old, "bob")[-1] == "new", "it goes on")
    old.meshctl("send", "bob", "again", "--from", "alice", "--id", "m1")
    old.meshctl("send", "bob", "newer", "--from", "alice", "--id", "newer")
    wait_until(lambda: ids(old, "bob")[-1] == "newer", "it goes on")
    assert ids(old, "bob").count("m1") == 1, "what was received then is known now"


def test_a_watch_goes_on_where_the_older_version_s_stopped(old: Home) -> None:
    cursor = old.state / "agents" / "bob.watch"
    place = json.loads(cursor.read_text())
    place["inode"] = (old.cache / "notify-bob.log").stat().st_ino  # a copy has another; all else is as it was
    cursor.write_text(json.dumps(place))
    old.start()
    lines = old.meshctl("watch", "bob", "--timeout", "0.5").splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["alice:", "carol:"]
    assert lines[0].endswith("after the watch [m3]")


def test_a_session_of_an_older_version_has_its_name_again(old: Home) -> None:
    old.start()
    with old.rpc() as rpc:
        assert rpc.call("session.open", session="s", client_session="c-1", project="/elsewhere")["name"] == "builder"


def line(body: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(body), body)


# What a newer version may have written: another number, and a shape that nobody here knows.
NEWER: dict[str, tuple[str, bytes]] = {
    "hosted.json": ("hosted.json", b'{"format":%d,"names":["bob"]}' % (hosted.FORMAT + 1)),
    "journal": ("agents/bob.journal", line(b'{"t":"journal","name":"bob","format":%d}' % (records.FORMAT + 1))),
    "journal's records": (
        "agents/bob.journal",
        line(b'{"t":"journal","name":"bob","format":1}') + line(b'{"t":"unheard-of"}') + b"torn",
    ),
    "watch cursor": ("agents/bob.watch", b'{"format":%d,"place":"?"}' % (logcursor.FORMAT + 1)),
    "sessions.json": ("sessions.json", b'{"format":%d,"names":{"c-1":"builder"}}' % (session_names.FORMAT + 1)),
}


@pytest.fixture(params=NEWER)
def newer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Home, Path]]:
    """A running daemon in whose state folder one file is a newer version's."""
    name, content = NEWER[request.param]
    with a_home(tmp_path / "newer") as home:
        put(OLD[-1], home)
        (home.state / name).write_bytes(content)
        home.start()
        yield home, home.state / name


def test_a_newer_file_is_refused_and_left_as_it_is(newer: tuple[Home, Path]) -> None:
    """The daemon lives, sends, hosts whom it can; nothing that is done writes the file; doctor names it."""
    home, path = newer
    before = path.read_bytes()
    doctor = json.loads(home.run("doctor", "--json").stdout)
    (said,) = [finding for finding in doctor["findings"] if "newer agent-mesh" in finding["what"]]
    assert str(path) in said["what"]
    assert said["next"]
    home.meshctl("send", "bob", "hello", "--from", "alice")
    for command in (
        ["register", "bob"],
        ["inbox", "bob"],
        ["watch", "bob", "--timeout", "0.2"],
        ["deregister", "carol"],
    ):
        home.run(*command)
    with home.rpc() as rpc:
        rpc.call("session.open", session="s", client_session="c-9", name="new")
    assert path.read_bytes() == before
    assert home.stop() == 0
    assert path.read_bytes() == before
    assert [name for name in os.listdir(path.parent) if name.startswith(path.name)] == [path.name]


def refused(home: Home, *arguments: str) -> str:
    done = home.run(*arguments)
    assert done.returncode == 1, done
    assert "upgrade agent-mesh on this machine" in done.stderr
    return done.stderr


SENTENCE = "was written by a newer agent-mesh"


def test_without_its_list_of_agents_the_daemon_hosts_nobody_and_says_so(lone: Home) -> None:
    """Its own list would take the place of the newer one. Sending goes on."""
    put(OLD[-1], lone)
    (lone.state / "hosted.json").write_bytes(NEWER["hosted.json"][1])
    lone.start()
    lone.meshctl("up")
    assert SENTENCE in refused(lone, "register", "bob")
    status = lone.run("status")
    assert status.stdout.startswith(f"does not work: {lone.state}/hosted.json {SENTENCE}")
    assert not lone.json("status")["ok"]
    assert lone.log().count(SENTENCE) == 1
    lone.meshctl("send", "bob", "hello", "--from", "alice")


@pytest.mark.parametrize("case", ["journal", "journal's records"])
def test_an_agent_with_a_newer_journal_is_not_hosted_and_all_others_are(lone: Home, case: str) -> None:
    put(OLD[-1], lone)
    (lone.state / "agents" / "bob.journal").write_bytes(NEWER[case][1])
    lone.start()
    lone.meshctl("up")
    assert SENTENCE in lone.json("status")["refused"]["bob"]
    assert "works, but not for bob (not hosted)\n" in lone.meshctl("status")
    assert SENTENCE in refused(lone, "register", "bob")
    wait_until(lambda: ids(lone, "carol") == ["last"], "carol is hosted")


def test_a_newer_watch_cursor_is_not_moved(lone: Home) -> None:
    put(OLD[-1], lone)
    (lone.state / "agents" / "bob.watch").write_bytes(NEWER["watch cursor"][1])
    lone.start()
    assert SENTENCE in refused(lone, "watch", "bob", "--timeout", "1")
    assert ids(lone, "bob")[:2] == ["m1", "m2"]


@pytest.mark.parametrize(
    ("file", "number"),
    [
        ("hosted.json", lambda data: json.loads(data)["format"]),
        ("sessions.json", lambda data: json.loads(data)["format"]),
        ("agents/bob.watch", lambda data: json.loads(data)["format"]),
        ("agents/bob.journal", lambda data: json.loads(data.split(b"\n")[0][9:])["format"]),
    ],
)
def test_each_file_that_is_written_says_its_format(lone: Home, file: str, number: Callable[[bytes], int]) -> None:
    lone.start()
    lone.meshctl("send", "bob", "hello", "--from", "alice")
    lone.meshctl("watch", "bob", "--timeout", "0.3")
    with Rpc(lone.socket) as rpc:
        rpc.call("session.open", session="s", client_session="c", name="builder")
    lone.meshctl("send", "bob", "hello", "--from", "alice")
    lone.meshctl("watch", "bob", "--timeout", "0.3")
    assert number((lone.state / file).read_bytes()) == 1
