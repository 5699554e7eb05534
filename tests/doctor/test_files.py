"""Folders, disks and state files that are broken; doctor names each, and its command mends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.test_trouble import SmallDisk, needs_root, read_only_at
from tests.doctor.checkup import BIN, bad, checkup, cured, named
from tests.helper import Home, Store, a_home, wait_until
from tests.mesh.peer import hosted


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, mesh_store: Store) -> Store:
    """The trouble is on this side of the store: one kind of it is enough."""
    with mesh_store.client() as client:
        client.config_set("appendonly", "yes")
    return mesh_store


# --- folders ---


@pytest.mark.parametrize("folder", ["state", "cache"])
def test_a_folder_that_others_may_write_into(home: Home, folder: str) -> None:
    path = {"state": home.state, "cache": home.cache}[folder]
    path.mkdir(parents=True)
    path.chmod(0o777)
    found = named(checkup(home), f"others may write into the {folder} folder {path}")
    assert [line for line in bad(cured(home, found)) if "not running" not in line] == []
    home.start()


def test_a_file_where_a_folder_should_be(home: Home) -> None:
    home.state.parent.mkdir(parents=True)
    home.state.write_text("mine")
    cured(home, named(checkup(home), f"{home.state} is no folder"))
    home.start()


@needs_root
def test_a_home_on_a_read_only_disk(home: Home) -> None:
    """The folder that is mounted so is named, and mounted for writing again."""
    bin_ = home.path / "bin"
    bin_.mkdir()
    (bin_ / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (bin_ / "sudo").chmod(0o755)
    home.state.mkdir(parents=True)
    inside = read_only_at(home.state)
    found = named(checkup(home, through=inside), "is mounted read-only")
    assert f"the state folder {home.state} is not writable" in found["what"]
    assert found["next"] == f"sudo mount -o remount,rw {home.state}"
    bind = found["next"].replace("remount", "remount,bind")  # a disk of its own needs no more than the command says
    cured(home, found | {"next": f"PATH={bin_}:$PATH {bind}"}, through=inside)


@needs_root
def test_notify_logs_on_a_read_only_disk(home: Home) -> None:
    """It is said of the folder and not of each file, whose mode is as it should be."""
    home.start()
    home.meshctl("register", "bob")
    assert home.stop() == 0
    about = [line for line in bad(checkup(home, through=read_only_at(home.cache))) if str(home.cache) in line]
    assert len(about) == 1
    assert "is mounted read-only" in about[0]


@needs_root
def test_folders_of_another_user(server: Store) -> None:
    """As after a command that was run by sudo: found by the user whose home it is."""
    folder = tempfile.mkdtemp(prefix="md", dir="/tmp")
    try:
        with a_home(Path(folder) / "home", server.url) as home:
            home.state.mkdir(parents=True, mode=0o700)
            for path in (Path(folder), home.path, home.path / ".local", home.state.parent):
                os.chown(path, 65534, 65534)
            os.chown(home.env["XDG_RUNTIME_DIR"], 65534, 65534)
            nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
            if subprocess.run([*nobody, "sh", "-c", f"exec {BIN}/meshctl version"], capture_output=True).returncode:
                pytest.skip(f"another user cannot run {BIN}/meshctl")
            findings = checkup(home, through=nobody)
            found = named(findings, f"the state folder {home.state} is not writable")
            assert found["next"] == f'sudo chown "$USER" {home.state}'
            assert {finding["area"] for finding in findings if finding["level"] == "error"} <= {"disk", "store"}
            os.chown(home.state, 65534, 65534)
            left = {finding["area"] for finding in checkup(home, through=nobody) if finding["level"] == "error"}
            assert left <= {"store"}, "its socket is root's, as far as these tests go"
    finally:
        shutil.rmtree(folder)


# --- the disk ---


@needs_root
def test_a_full_disk(home: Home) -> None:
    """Named of the folder and of the agents that cannot write; gone when there is room."""
    small = SmallDisk(home)
    small.start(home.state)
    for name in ("bob", "carol"):
        home.meshctl("register", name)
    small.fill()
    for name in ("bob", "carol"):
        home.meshctl("send", name, "x" * 5000, "--from", "alice")
    wait_until(lambda: "No space" in str((hosted(home, "bob") or {})["trouble"]), "bob found it full")
    wait_until(lambda: "No space" in str((hosted(home, "carol") or {})["trouble"]), "carol found it full")
    inside = entering(home)
    findings = checkup(home, through=inside)
    assert named(findings, f"the disk of the state folder {home.state} is full")["next"].startswith("df -h ")
    for name in ("bob", "carol"):
        named(findings, f"{name}: cannot write in {home.state}/agents: No space left on device")
    small.free()
    wait_until(lambda: (hosted(home, "bob") or {})["trouble"] is None, "it goes on")
    wait_until(lambda: (hosted(home, "carol") or {})["trouble"] is None, "it goes on")
    left = bad(checkup(home, through=inside))
    assert [line for line in left if "are free for" not in line] == []
    assert "only " in left[0], "a disk of 256 KiB has little room"


@needs_root
def test_a_full_disk_under_the_embedded_store(lone: Home) -> None:
    """It refuses writes and says so; the state folder's disk is the reason; with room again it goes on by itself."""
    small = SmallDisk(lone)
    small.SIZE = 2 << 20
    small.start(lone.state)
    lone.meshctl("up")
    small.fill()
    wait_until(lambda: lone.run("send", "bob", "x" * 5000).returncode == 4, "writes are refused")
    inside = entering(lone)
    findings = checkup(lone, through=inside)
    named(findings, f"the disk of the state folder {lone.state} is full")
    found = named(findings, "the store cannot save and refuses writes: ")
    assert found["next"].startswith(f"df -h {lone.state}/store  # ")
    assert lone.run("status").stdout.startswith("does not work: the store refuses writes for ")
    small.free()
    wait_until(lambda: lone.run("send", "bob", "x").returncode == 0, "it takes writes again")
    wait_until(lambda: lone.run("status").returncode == 0, "the daemon knows")
    assert [line for line in bad(checkup(lone, through=inside)) if "are free for" not in line] == []


def entering(home: Home) -> Sequence[str]:
    """What runs a command where the daemon's own mounts are."""
    assert home.daemon is not None
    return ["nsenter", "-m", "-t", str(home.daemon.pid)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which makes a sync slow")
def test_a_slow_disk(home: Home) -> None:
    home.state.mkdir(parents=True, mode=0o700)
    slow = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=150000"]
    found = named(checkup(home, through=slow), "a sync to the disk of", "warning")
    took = re.search(r"takes (\d+) ms: every message waits for one", found["what"])
    assert took is not None
    assert int(took[1]) >= 150  # a busy machine adds to it
    assert [finding["level"] for finding in checkup(home) if "a sync to the disk of" in finding["what"]] == ["ok"]


def test_a_disk_that_hangs(home: Home) -> None:
    """What hangs is named, everything else is said all the same, and doctor ends in time."""
    home.start()
    (home.state / "agents" / "bob.journal").unlink(missing_ok=True)
    os.mkfifo(home.state / "agents" / "bob.journal")  # nobody writes into it, so that reading it never ends
    findings = checkup(home)
    named(findings, "the check of the files hangs")
    assert [finding["level"] for finding in findings if "answers (pid" in finding["what"]] == ["ok"]
    assert any(finding["area"] == "disk" for finding in findings)


# --- state files ---


def test_damaged_records_of_a_journal(home: Home) -> None:
    """Found while the daemon has not looked yet, and then as a copy that was kept aside."""
    daemon = home.start()
    home.meshctl("register", "bob")
    for text in ("first", "second", "third"):
        home.meshctl("send", "bob", text, "--from", "alice")
    wait_until(lambda: (hosted(home, "bob") or {})["unread"] == 3, "all are there")
    daemon.send_signal(signal.SIGTERM)
    daemon.wait()
    journal = home.state / "agents" / "bob.journal"
    journal.write_bytes(journal.read_bytes().replace(b"second", b"sEcond"))
    found = named(checkup(home), f"{journal}: 1 damaged records", "warning")
    left = cured(home, found)
    aside = named(left, "records of a journal were damaged, and are kept in", "warning")
    assert bad(cured(home, aside)) == []
    assert [file.read_bytes().count(b"sEcond") for file in (home.state / "aside").iterdir()] == [1]


@pytest.mark.parametrize("vanished", [False, True])
def test_unread_mail_that_is_damaged_on_the_disk(home: Home, server: Store, prefix: str, vanished: bool) -> None:
    """Found before it is to be read; told by the inbox as lost, and what is left is kept aside."""
    home.start()
    home.meshctl("register", "bob")
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        for n in range(4000):
            pipeline.xadd(f"{prefix}:to_bob", {"from": "alice", "msg": "hi", "ts": "1", "id": f"m{n}"})
        pipeline.execute()
    wait_until(lambda: (hosted(home, "bob") or {})["unread"] == 4000, "all are there")
    folder = home.state / "agents" / "bob.unread"
    wait_until(lambda: len(list(folder.glob("*.segment"))) >= 2, "a part of it is on the disk")
    assert bad(checkup(home)) == []
    (segment, *_) = sorted(folder.iterdir())
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:100]))
    gone = len(lines) - 100
    if vanished:
        segment.unlink()
        gone = len(lines) - 1
    found = named(checkup(home), f"{gone} unread messages of bob are gone from the disk")
    left = cured(home, found)
    assert (hosted(home, "bob") or {})["lost"] == gone
    if not vanished:
        left = cured(home, named(left, "unread mail was damaged, and what is left of it is kept in", "warning"))
    assert bad(left) == []


def test_a_message_that_could_not_be_decoded(home: Home, server: Store, prefix: str) -> None:
    home.start()
    home.meshctl("register", "bob")
    with server.client() as client:
        client.xadd(f"{prefix}:to_bob", {"nonsense": b"\xff"})
    kept = home.state / "agents" / "bob.quarantine"
    wait_until(kept.exists, "it is kept")
    assert bad(cured(home, named(checkup(home), f"could not be decoded are kept in {kept}", "warning"))) == []


def test_a_journal_that_cannot_be_read(home: Home) -> None:
    """All others are hosted; the command puts it away and hosts the name anew."""
    home.start()
    home.meshctl("register", "bob")
    assert home.stop() == 0
    journal = home.state / "agents" / "bob.journal"
    journal.unlink()
    journal.mkdir()
    home.start()
    assert bad(cured(home, named(checkup(home), f"{journal}"))) == []
    home.meshctl("inbox", "bob")


def test_a_journal_that_was_mended_under_a_daemon_that_has_not_looked(home: Home) -> None:
    home.start()
    home.meshctl("register", "bob")
    assert home.stop() == 0
    journal = home.state / "agents" / "bob.journal"
    good = journal.read_bytes()
    journal.unlink()
    journal.mkdir()
    home.start()
    journal.rmdir()
    journal.write_bytes(good)
    assert bad(cured(home, named(checkup(home), "bob is not hosted: "))) == []


def test_a_damaged_list_of_agents(home: Home) -> None:
    """The daemon lives and hosts nobody; the command puts the list away and hosts again whoever has a journal."""
    home.start()
    for name in ("bob", "carol"):
        home.meshctl("register", name)
    home.meshctl("send", "bob", "kept", "--from", "carol")
    wait_until(lambda: (hosted(home, "bob") or {})["unread"] == 1, "it is received")
    assert home.stop() == 0
    path = home.state / "hosted.json"
    path.write_bytes(path.read_bytes()[:-20])
    home.start()
    found = named(checkup(home), f"cannot read {path}")
    assert bad(cured(home, found)) == []
    assert [agent["name"] for agent in home.json("status")["agents"]] == ["bob", "carol"]
    assert home.meshctl("inbox", "bob") == "[DIRECT from carol] kept\n"


def test_a_list_that_was_mended_under_a_daemon_that_has_not_looked(home: Home) -> None:
    home.state.mkdir(parents=True, mode=0o700)
    path = home.state / "hosted.json"
    path.write_text("{")
    home.start()
    path.write_text(json.dumps({"agents": {"bob": {}}, "format": 1}))
    assert bad(cured(home, named(checkup(home), "no agent is hosted: cannot read"))) == []
    assert [agent["name"] for agent in home.json("status")["agents"]] == ["bob"]


def test_a_folder_where_a_notify_log_should_be(home: Home) -> None:
    home.start()
    home.meshctl("register", "bob")
    log = home.cache / "notify-bob.log"
    log.unlink(missing_ok=True)
    log.mkdir()
    home.meshctl("send", "bob", "x", "--from", "alice")
    wait_until(lambda: (hosted(home, "bob") or {})["trouble"], "bob is in trouble")
    findings = checkup(home)
    named(findings, f"bob: its notify log {log} cannot be written: Is a directory")
    found = named(findings, f"{log} is no file")
    cured(home, found)
    wait_until(lambda: (hosted(home, "bob") or {})["trouble"] is None, "it goes on")
    assert bad(checkup(home)) == []
    assert home.notify_lines("bob")[0].startswith("📨 alice: x")


def test_a_list_of_sessions_that_is_damaged_is_no_trouble(home: Home) -> None:
    """It costs names, and the next that is written takes its place."""
    home.state.mkdir(parents=True, mode=0o700)
    (home.state / "sessions.json").write_text("{")
    home.start()
    assert bad(checkup(home)) == []


def test_every_path_is_quoted(server: Store, prefix: str) -> None:
    """A home with a space, a quote and a dollar in its name: each command means that path and nothing else."""
    with (
        tempfile.TemporaryDirectory(prefix="mq") as folder,
        a_home(Path(folder) / "it's $HOME", server.url, AGENT_MESH_PREFIX=prefix) as home,
    ):
        home.state.mkdir(parents=True)
        home.state.chmod(0o777)
        home.cache.mkdir(parents=True, mode=0o700)
        (home.cache / "notify-bob.log").mkdir()
        (home.state / "hosted.json").write_text("[]")
        for words in ("others may write into", "is no file", "cannot read"):
            cured(home, named(checkup(home), words))
        home.meshctl("down")


def test_the_program_is_the_one_of_this_installation() -> None:
    """What the tests paste is what a user would paste."""
    assert os.path.dirname(sys.executable) == BIN
    assert os.access(os.path.join(BIN, "meshctl"), os.X_OK)
