"""The log where systemd's journal reads it: which handler, which fields, and what never gets into it."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from meshd.service import journald
from tests.helper import Home, Store, a_home, wait_until
from tests.service.user_manager import UserManager, why_not

SECRET = "the cake is a lie"


def test_the_journal_is_used_only_where_standard_error_leads_to_it(tmp_path: Path) -> None:
    """`$JOURNAL_STREAM` is inherited: a daemon whose output goes elsewhere would log into nothing."""
    with open(tmp_path / "log", "w") as file:
        status = os.fstat(file.fileno())
        right = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert journald.leads_to_journal(right, file.fileno())
        assert not journald.leads_to_journal({"JOURNAL_STREAM": f"{status.st_dev}:1"}, file.fileno())
        assert not journald.leads_to_journal({"JOURNAL_STREAM": ""}, file.fileno())
        assert not journald.leads_to_journal({}, file.fileno())
    assert not journald.leads_to_journal(right, 1_000_000)
    assert type(journald.handler({}, 2)) is logging.StreamHandler


def test_without_systemd_python_each_line_has_its_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "systemd.journal", None)
    with open(tmp_path / "log", "w") as file:
        status = os.fstat(file.fileno())
        made = journald.handler({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, file.fileno())
        assert isinstance(made, logging.StreamHandler)
        record = logging.LogRecord("meshd", logging.ERROR, "x", 1, "two\nlines of %s", ("it",), None)
        assert made.format(record) == "<3>meshd: two\n<3>lines of it"


@pytest.mark.parametrize(
    ("level", "expected"), [("DEBUG", 7), ("INFO", 6), ("WARNING", 4), ("ERROR", 3), ("CRITICAL", 2), (5, 7)]
)
def test_priorities(level: str | int, expected: int) -> None:
    number = level if isinstance(level, int) else logging.getLevelNamesMapping()[level]
    assert journald.priority(number) == expected


def test_a_record_has_the_named_fields_and_none_of_its_arguments() -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    made = journald.JournalHandler(lambda message, **fields: sent.append((message, fields)))
    made.setFormatter(logging.Formatter("%(message)s"))
    record = logging.LogRecord("meshd.agent", logging.WARNING, "/x/runner.py", 7, "%s: hidden", ("bob",), None, "f")
    record.__dict__ |= {"agent": "bob\udcff", "event": "message.lost", "message_id": None, "password": "hunter2"}
    made.emit(record)
    assert sent == [
        (
            "bob: hidden",
            {
                "PRIORITY": "4",
                "SYSLOG_IDENTIFIER": "meshd",
                "LOGGER": "meshd.agent",
                "CODE_FILE": "/x/runner.py",
                "CODE_LINE": 7,
                "CODE_FUNC": "f",
                "AGENT_MESH_AGENT": "bob\\udcff",
                "AGENT_MESH_EVENT": "message.lost",
            },
        )
    ]


def test_no_text_of_a_message_gets_into_the_log(lone: Home) -> None:
    """At the finest level, with everything that carries text: a send, a re-ping, a broadcast, an answer."""
    lone.start("--log-level", "debug")
    lone.meshctl("register", "bob")
    lone.meshctl("send", "bob", SECRET, "--from", "alice", "--expect-reply", "--within", "0.5", "--id", "id-of-it")
    lone.meshctl("broadcast", SECRET)
    lone.meshctl("inbox", "bob")
    wait_until(lambda: "agent.pinged alice" in lone.log(), "it was sent again")
    lone.meshctl("ack", "alice", SECRET, "--from", "bob")
    lone.stop()
    log = lone.log()
    assert "message.received bob id-of-it" in log
    assert "agent.registered bob" in log
    assert SECRET not in log


def test_fields_can_be_searched_for_in_a_real_journal(tmp_path: Path, mesh_store: Store, prefix: str) -> None:
    """With a journald of its own: the daemon's entries, found by agent, event and message id."""
    pytest.importorskip("systemd.journal", reason="systemd-python is not installed")
    if reason := why_not():
        pytest.skip(reason)
    package = importlib.import_module("systemd").__path__[0]
    with a_home(tmp_path / "home") as home:
        home.config.parent.mkdir(parents=True)
        home.config.write_text(f'redis_url = "{mesh_store.url}"\nprefix = "{prefix}"\n')
        with UserManager(home, journal=True) as manager:
            run = f"ExecStart={sys.executable} -P -m meshd --log-level debug"
            manager.drop_in(f"Environment=PYTHONPATH={os.path.dirname(package)}", "ExecStart=", run)
            manager.meshctl("service", "install")
            home.meshctl("send", "bob", SECRET, "--from", "alice", "--id", "id-of-it")
            home.meshctl("inbox", "bob")
            home.meshctl("register", "bob")
            home.meshctl("send", "bob", SECRET, "--from", "alice", "--id", "id-of-another")
            home.meshctl("inbox", "bob")
            manager.inside("journalctl", "--sync")
            found = manager.inside("journalctl", "-o", "json", "AGENT_MESH_MESSAGE_ID=id-of-another").stdout
            received = [json.loads(line) for line in found.splitlines()]
            everything = manager.inside("journalctl", "-o", "json", "SYSLOG_IDENTIFIER=meshd").stdout
    assert [(e["AGENT_MESH_AGENT"], e["AGENT_MESH_EVENT"], e["PRIORITY"]) for e in received] == [
        ("bob", "message.received", "7")
    ]
    assert "listens on" in everything
    assert SECRET not in everything
    assert "CODE_ARGS" not in everything


def test_without_systemd_python_the_journal_has_priorities_and_the_program_s_name(
    tmp_path: Path, mesh_store: Store, prefix: str
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    with a_home(tmp_path / "home") as home:
        home.config.parent.mkdir(parents=True)
        home.config.write_text(f'redis_url = "{mesh_store.url}"\nprefix = "{prefix}"\n')
        with UserManager(home, journal=True) as manager:
            without = home.path / "without" / "systemd"
            without.mkdir(parents=True)
            (without / "__init__.py").touch()  # stands before an installed one, and has nothing in it
            manager.drop_in(f"Environment=PYTHONPATH={without.parent}")
            manager.meshctl("service", "install")
            home.config.write_text("nonsense = 1\n")
            manager.ctl("reload", "meshd")
            wait_until(lambda: "not changed" in manager.inside("journalctl", "-t", "meshd").stdout, "it is logged")
            found = manager.inside("journalctl", "-o", "json", "-t", "meshd", "PRIORITY=3").stdout
    (entry,) = [json.loads(line) for line in found.splitlines()]
    assert entry["MESSAGE"].startswith("meshd: configuration not changed: ")
