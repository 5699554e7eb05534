"""What the daemon lives through: a store that talks nonsense, and a state folder that is removed under it."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.machines import ROUNDS, Machine, rounds_take
from tests.faults.test_crash import TARGETS, Sender, drain, sending, sent_more
from tests.faults.two import Two
from tests.helper import Home, RpcError, a_home, free_port, wait_until
from tests.mesh.peer import hosted, receiving, texts
from tests.store.servers import Fake, a_store, commands_in, is_up, state

Answer = Callable[[bytes], bytes]
_BAD = b"\xff\xfe\xc3\x28"


def to_all(answer: bytes) -> Answer:
    """The same to every command."""
    return lambda data: answer * len(commands_in(data))


def to_info(answer: bytes) -> Answer:
    """To INFO alone; the rest is answered as a store might, as far as one word goes."""
    return lambda data: b"".join(answer if command == b"INFO" else b"+OK\r\n" for command in commands_in(data))


def _text(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


_INFO = b"# Server\r\nredis_version:7.2.4\r\nprocess_id:1\r\nrun_id:%s\r\n" % (b"a" * 40)

NONSENSE: dict[str, Answer] = {
    "INFO is a number": to_info(b":1\r\n"),
    "INFO is an empty list": to_info(b"*0\r\n"),
    "INFO is nothing": to_info(b"$-1\r\n"),
    "INFO is not UTF-8": to_info(_text(_BAD)),
    "INFO has a version that is none": to_info(_text(b"redis_version:\xff\xfe.x\r\nprocess_id:no\r\n")),
    "all is a number": to_all(b":1\r\n"),
    "all is an empty list": to_all(b"*0\r\n"),
    "all is nothing": to_all(b"*-1\r\n"),
    "all is not UTF-8": to_all(_text(_BAD)),
    "all is nested without end": to_all(b"*1\r\n" * 5000),
    "all is an error that is not UTF-8": to_all(b"-ERR " + _BAD + b"\r\n"),
}

# What is of the code and not of the store.
_INNER = re.compile(r"Traceback|[a-z]Error\b|object|attribute|NoneType|\bint\b|codec|subscriptable|unpack")


class Place(NamedTuple):
    """A daemon, and the port where it looks for its store."""

    home: Home
    port: int
    folder: Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    port = free_port()
    with a_home(tmp_path / "home", f"redis://127.0.0.1:{port}") as home:
        yield Place(home, port, tmp_path / "store")


def lives(home: Home) -> bool:
    assert home.daemon is not None
    return home.daemon.poll() is None


def works(place: Place, text: str) -> None:
    """A message goes through the store and is read."""
    wait_until(lambda: is_up(place.home), "the store is up", 40)
    place.home.meshctl("register", "bob")
    wait_until(lambda: receiving(place.home, "bob"), "bob receives", 40)
    place.home.meshctl("send", "bob", text, "--from", "alice")
    wait_until(lambda: texts(place.home, "bob") == [text], "it is received")


def is_said_to_be_down(home: Home, case: str) -> None:
    """By `status`, with exit 4, in words about the store; and a send fails inside its time."""

    def trouble() -> str | None:
        assert lives(home), f"{case}: the daemon has ended: {home.log()[-500:]}"
        store = store_of(home)
        return store["trouble"] if store["state"] == "down" else None

    said = wait_until(trouble, f"{case}: it is down, and why")
    assert not _INNER.search(said), said
    status = home.run("status")
    assert status.returncode == 4
    assert status.stdout.startswith("does not work: the store is down"), status.stdout
    is_refused(home, case)


def is_refused(home: Home, case: str) -> None:
    """A send, with exit 4 and words about the store."""
    failed = home.run("send", "bob", "x", "--from", "alice")
    assert lives(home), f"{case}: the daemon has ended: {home.log()[-500:]}"
    assert (failed.returncode, failed.stdout) == (4, ""), failed.stderr
    assert not _INNER.search(failed.stderr), failed.stderr


def store_of(home: Home) -> dict[str, Any]:
    """The store's part of `status`; of a daemon that ends just now, nothing."""
    try:
        return state(home)
    except (OSError, EOFError, RpcError):
        return {"state": None}


@pytest.mark.parametrize("case", NONSENSE)
def test_a_store_that_answers_nonsense_and_then_is_one(place: Place, case: str) -> None:
    nonsense = Fake(NONSENSE[case], place.port)
    try:
        place.home.start()
        is_said_to_be_down(place.home, case)
    finally:
        nonsense.close()
    with a_store("redis", place.folder, port=place.port):
        works(place, "hello")
        assert lives(place.home)


def test_a_store_of_which_only_the_name_is_right(place: Place) -> None:
    """INFO is a store's, and all else is `OK`: whatever `status` calls it, it is not said to work."""
    nonsense = Fake(to_info(_text(_INFO)), place.port)
    try:
        place.home.start()
        is_refused(place.home, "only INFO is right")
        assert not place.home.run("status").stdout.startswith("works")
    finally:
        nonsense.close()
    with a_store("redis", place.folder, port=place.port):
        works(place, "hello")


@rounds_take(40)
def test_a_store_in_whose_place_something_talks_nonsense_for_a_while(place: Place) -> None:
    """Under an agent that receives, and again: what was sent before is there, and it receives as before."""
    home = place.home
    home.start()
    for n, (case, answer) in enumerate(list(NONSENSE.items())[: 3 * ROUNDS]):
        with a_store("redis", place.folder, "--appendonly", "yes", "--appendfsync", "always", port=place.port):
            works(place, f"before {case}")
            home.meshctl("send", "bob", f"unread {n}", "--from", "alice")
            wait_until(lambda: (hosted(home, "bob") or {"unread": 0})["unread"] == 1, "it is received")
        nonsense = Fake(answer, place.port)
        try:
            is_said_to_be_down(home, case)
            assert texts(home, "bob") == [f"unread {n}"], "what was received is there"
        finally:
            nonsense.close()
    with a_store("redis", place.folder, "--appendonly", "yes", port=place.port):
        works(place, "at the end")


# --- the state folder ---


@rounds_take(60)
def test_a_state_folder_that_is_removed_under_load(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` says so, or the daemon has made it again. After a kill -9 and a new start the names are not held by
    the daemon that is dead, and everything that was acknowledged is there: the store has it."""
    wrong: list[str] = []
    total = 0
    for _ in range(max(1, ROUNDS // 2)):
        total += _removed_once(two, wrong)
    with capsys.disabled():
        print(f"\n    {total} acknowledged", end=" ")
    assert not wrong, "\n".join(wrong)


def _removed_once(two: Two, wrong: list[str]) -> int:
    a, b, _ = two
    for name in TARGETS:
        b.register(name)
    with sending(a.home) as senders:
        _sends_more(senders)
        shutil.rmtree(b.home.state, ignore_errors=True)  # the daemon goes on writing there
        _sends_more(senders)
    assert lives(b.home)
    with _noted(wrong):
        wait_until(lambda: _said_or_mended(b), "status says it, or it is there again")
    b.home.kill()
    b.home.start()
    wait_until(lambda: is_up(b.home), "the store is up")
    for name in TARGETS:
        done = b.home.run("register", name)
        if done.returncode:
            wrong.append(f"{name} is locked: {done.stderr}")
            b.register(name, "--takeover")
    for name in TARGETS:
        with _noted(wrong):
            _all_is_there(b, name, senders)
    return sum(len(sender.acknowledged) for sender in senders)


@contextlib.contextmanager
def _noted(wrong: list[str]) -> Iterator[None]:
    """What fails in here is one of the things that are wrong, and the test goes on."""
    try:
        yield
    except AssertionError as error:
        wrong.append(str(error))


def _sends_more(senders: list[Sender]) -> None:
    before = sum(len(sender.acknowledged) for sender in senders)
    wait_until(lambda: sent_more(senders, before + 200), "sends are acknowledged")


def _all_is_there(machine: Machine, name: str, senders: list[Sender]) -> None:
    """Everything acknowledged, once, in each sender's order, and nothing is told to be lost."""
    wanted = {sender.name: [i for target, i in sender.acknowledged if target == name] for sender in senders}
    count = sum(map(len, wanted.values()))
    with contextlib.suppress(AssertionError):  # what is missing is said below
        wait_until(lambda: machine.unread(name) >= count, "all are received")
    found = [message["id"] for message in drain(machine.home, name)]
    for sender, ids in wanted.items():
        there = [message_id for message_id in found if message_id.startswith(f"{sender}-")]
        assert there == ids, f"{name}: of {len(ids)} from {sender} there are {len(there)}, or in another order"
    assert (hosted(machine.home, name) or {})["lost"] == 0, f"{name} is told of losses"


def _said_or_mended(machine: Machine) -> bool:
    """A journal that is there again is one that a new daemon finds."""
    said = machine.home.run("status").stdout
    if str(machine.home.state) in said and not said.startswith("works for all"):
        return True
    return all((machine.home.state / "agents" / f"{name}.journal").exists() for name in TARGETS)
