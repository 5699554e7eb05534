"""Unread mail of a daemon that is put on the disk, and read from there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from meshd.commands.base import Result
from meshd.commands.reading import InboxParams, Reading, inbox
from meshd.core import queue
from meshd.core.effects import Effect
from meshd.core.message import Message
from meshd.disk.segments import Segments
from meshd.receiving.agent import Agent
from tests.helper import eventually
from tests.receiving.daemon import Daemon, Hang, Here, obstruct

FEW = queue.Bounds(messages=10, chunks=1, crowd=20)
MESSAGES = 100


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is kept in memory."""
    monkeypatch.setattr(queue, "BOUNDS", FEW)


def folder(daemon: Daemon, name: str) -> Path:
    return daemon.journal(name).with_suffix(".unread")


def files(daemon: Daemon, name: str) -> list[Path]:
    return sorted(folder(daemon, name).glob("*.segment"))


async def backlog(daemon: Daemon, name: str = "bob", count: int = MESSAGES) -> Agent:
    """Has so many unread, most of them on the disk."""
    agent = await daemon.host(name)
    for n in range(count):
        daemon.send(name, f"m{n}")
    await eventually(lambda: len(agent.core.inbox.unread) == count, "all are received")
    await settled(agent)
    return agent


async def settled(agent: Agent) -> None:
    """All that can be is on the disk."""
    await eventually(lambda: agent.core.inbox.surplus() is None, "the rest is on the disk")
    await agent.execute(list)


def ids(result: Result) -> list[str]:
    return [message["id"] for message in result.data["messages"]]


async def read(daemon: Daemon, name: str = "bob", *, peek: bool = False, limit: int = 30) -> list[str]:
    """What `inbox` gives until there is no more; with `peek` once."""
    found: list[str] = []
    while True:
        call = Here(daemon.mesh.names, daemon.mesh.configuration, None)
        result = await inbox(call, InboxParams(name=name, peek=peek, limit=limit), daemon.mesh.supply(Reading))
        found += ids(result)
        if result.handover is not None:
            await result.handover.confirm()
        if peek or not result.data["more"]:
            return found


ALL = [f"m{n}" for n in range(MESSAGES)]


async def test_all_is_read_in_order_and_nothing_is_left_on_the_disk(daemon: Daemon) -> None:
    bob = await backlog(daemon)
    assert bob.core.inbox.unread.hot <= 4 * FEW.messages
    assert len(files(daemon, "bob")) >= 6
    assert await read(daemon) == ALL
    assert bob.core.inbox.losses.total == 0
    assert not folder(daemon, "bob").exists()


async def test_a_daemon_that_starts_again_has_all_of_it_and_reads_no_file_for_that(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backlog(daemon)
    await daemon.stop()
    hidden = folder(daemon, "bob").rename(folder(daemon, "bob").with_suffix(".hidden"))
    await daemon.start()
    bob = await daemon.host("bob")
    assert len(bob.core.inbox.unread) == MESSAGES
    hidden.rename(folder(daemon, "bob"))
    assert await read(daemon) == ALL


async def test_mail_of_an_older_journal_goes_to_the_disk_at_the_start(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which had all of it in memory, and in the journal."""
    monkeypatch.setattr(queue, "BOUNDS", queue.Bounds(messages=MESSAGES))
    await backlog(daemon)
    assert not folder(daemon, "bob").exists()
    await daemon.stop()
    monkeypatch.setattr(queue, "BOUNDS", FEW)
    await daemon.start()
    bob = await daemon.host("bob")
    await settled(bob)
    assert bob.core.inbox.unread.hot <= 4 * FEW.messages
    assert await read(daemon) == ALL


async def test_looking_brings_nothing_into_memory(daemon: Daemon) -> None:
    bob = await backlog(daemon)
    there, hot = files(daemon, "bob"), bob.core.inbox.unread.hot
    assert await read(daemon, peek=True, limit=MESSAGES) == ALL
    assert (files(daemon, "bob"), bob.core.inbox.unread.hot) == (there, hot)


async def test_whoever_wants_more_than_is_kept_in_memory_gets_it_at_once(daemon: Daemon) -> None:
    """And while it is not confirmed it stays there; afterwards it goes to the disk again."""
    bob = await backlog(daemon)
    call = Here(daemon.mesh.names, daemon.mesh.configuration, None)
    result = await inbox(call, InboxParams(name="bob", limit=90), daemon.mesh.supply(Reading))
    assert ids(result) == ALL[:90]
    daemon.send("bob", "later")
    await eventually(lambda: len(bob.core.inbox.unread) == MESSAGES + 1, "it is received")
    await settled(bob)
    assert bob.core.inbox.unread.hot >= 90
    assert result.handover is not None
    result.handover.release()
    daemon.send("bob", "last")
    await eventually(lambda: len(bob.core.inbox.unread) == MESSAGES + 2, "it is received")
    await settled(bob)
    assert bob.core.inbox.unread.hot <= 4 * FEW.messages
    assert await read(daemon) == [*ALL, "later", "last"]


@pytest.mark.parametrize("how", ["gone", "cut off", "overwritten", "all gone"])
async def test_mail_that_is_damaged_is_lost_and_told_once_and_the_rest_is_read(daemon: Daemon, how: str) -> None:
    bob = await backlog(daemon)
    damaged = files(daemon, "bob") if how == "all gone" else files(daemon, "bob")[2:3]
    lost: list[str] = []
    for path in damaged:
        text = path.read_bytes()
        there = re.findall(rb'"id":"(m[0-9]+)"', text)
        assert len(there) >= FEW.messages
        if how == "cut off":
            path.write_bytes(text[: text.index(b'"id":"' + there[4])])
            gone = there[4:]
        elif how == "overwritten":
            path.write_bytes(text.replace(b'"id":"' + there[3], b'"id":"' + b"x" * len(there[3])))
            gone = there[3:4]
        else:
            path.unlink()
            gone = there
        lost += [one.decode() for one in gone]
    result = await read(daemon)
    assert result == [one for one in ALL if one not in lost]
    assert bob.core.inbox.losses.total == len(lost)
    told = [line for line in daemon.lines("bob") if line.startswith("⚠ LOST")]
    assert len(told) == len(damaged)
    assert sum(int(line.split()[2]) for line in told) == len(lost)
    aside = list(folder(daemon, "bob").parent.glob("bob.unread-*.damaged-*"))
    assert len(aside) == (how in ("cut off", "overwritten"))
    await daemon.stop()
    await daemon.start()
    assert (await daemon.host("bob")).core.inbox.losses.total == len(lost)


async def test_mail_stays_in_memory_while_the_disk_takes_none_of_it(daemon: Daemon) -> None:
    """Nothing is lost, and receiving goes on; once there is room it goes there."""
    bob = await daemon.host("bob")
    folder(daemon, "bob").write_text("in the way")
    for one in ALL:
        daemon.send("bob", one)
    await eventually(lambda: len(bob.core.inbox.unread) == MESSAGES, "all are received")
    assert bob.core.inbox.unread.hot == MESSAGES
    await eventually(lambda: bob.health.trouble, "it is said")
    assert bob.health.trouble == f"cannot write in {folder(daemon, 'bob').parent}: File exists"
    folder(daemon, "bob").unlink()
    daemon.send("bob", "last")
    await eventually(lambda: len(bob.core.inbox.unread) == MESSAGES + 1, "it is received")
    await settled(bob)
    assert bob.core.inbox.unread.hot <= 4 * FEW.messages
    assert bob.health.trouble is None
    assert await read(daemon) == [*ALL, "last"]


async def test_what_a_crash_left_beside_the_journal_is_removed_at_the_next_start(daemon: Daemon) -> None:
    bob = await backlog(daemon)
    newest = files(daemon, "bob")[-1]
    await daemon.stop()
    number = int(newest.stem) + 1
    newest.with_name(f"{number:08d}.segment").write_bytes(newest.read_bytes()[:100])
    await daemon.start()
    bob = await daemon.host("bob")
    assert {int(path.stem) for path in files(daemon, "bob")} == set(bob.core.inbox.unread.segments)
    assert await read(daemon) == ALL


async def test_mail_that_a_damaged_journal_told_of_is_found_again(daemon: Daemon) -> None:
    """Its file is there."""
    await backlog(daemon)
    await daemon.stop()
    lines = daemon.journal("bob").read_bytes().splitlines(keepends=True)
    (k, *_) = [k for k, line in enumerate(lines) if b'"t":"spilled"' in line]
    lines[k] = lines[k].replace(b'"number"', b'"mumber"')
    daemon.journal("bob").write_bytes(b"".join(lines))
    await daemon.start()
    bob = await daemon.host("bob")
    assert len(bob.core.inbox.unread) == MESSAGES
    assert sorted(await read(daemon)) == sorted(ALL)


async def test_a_message_on_the_disk_can_be_answered(daemon: Daemon) -> None:
    """However old it is: by its id, which the notify log tells."""
    bob = await backlog(daemon)
    for segment in bob.core.inbox.unread.segments.values():
        bob.core.inbox.unread._forget_ids(segment)
    assert "m50" not in bob.core.inbox.unread
    assert await bob.backlog.origin("m50") == ("alice", False, None)
    assert await bob.backlog.origin("other") is None


async def test_a_wake_tells_of_all_that_is_unread(daemon: Daemon) -> None:
    bob = await daemon.host("bob")
    for n in range(MESSAGES):
        daemon.send("bob", f"m{n}", sender=f"peer{n % 3}")
    await eventually(lambda: len(bob.core.inbox.unread) == MESSAGES, "all are received")
    await settled(bob)
    assert bob.waker.line() == f"agent-mesh: {MESSAGES} unread from peer0, peer1, peer2: call mesh_inbox"


async def test_what_only_the_disk_has_goes_with_the_name(daemon: Daemon) -> None:
    """The store has lost it: the next holder gets it through the store, page by page."""
    bob = await backlog(daemon)
    daemon.store.xtrim(f"{daemon.prefix}:to_bob", maxlen=0, approximate=False)
    await daemon.mesh.names.unhost("bob")
    left = daemon.store.xrange(f"{daemon.prefix}:left:bob")
    assert [fields[b"id"].decode() for _, fields in left] == ALL
    assert bob.gone is not None


async def test_mail_that_another_daemon_gives_back_is_no_new_mail(daemon: Daemon) -> None:
    """It is on the disk here, and came too long ago for its id to be remembered."""
    bob = await backlog(daemon)
    there = await bob.backlog.peek(MESSAGES, 1 << 20)
    for segment in bob.core.inbox.unread.segments.values():
        bob.core.inbox.unread._forget_ids(segment)
    assert not bob.core.inbox.is_duplicate("m50")
    new = msgspec.structs.replace(there[50], id="new")
    cold = [one for one in there if one.id not in bob.core.inbox.unread]
    assert await bob.backlog.fresh([*cold, new]) == [new]


async def test_what_a_daemon_left_for_another_and_takes_in_again_is_there_once(daemon: Daemon) -> None:
    """When it stops, whoever hosts the name next is to have what the store has lost; and that may be itself."""
    bob = await backlog(daemon)
    daemon.store.xtrim(f"{daemon.prefix}:to_bob", maxlen=0, approximate=False)
    for segment in bob.core.inbox.unread.segments.values():
        bob.core.inbox.unread._forget_ids(segment)
    await bob.execute(list)
    daemon.journal("bob").unlink()  # written anew, without the ids that were forgotten
    daemon.send("bob", "last")
    await eventually(lambda: len(bob.core.inbox.unread) == MESSAGES + 1, "it is received")
    await settled(bob)
    await daemon.stop()
    assert daemon.store.xlen(f"{daemon.prefix}:left:bob") == MESSAGES
    await daemon.start()
    bob = await daemon.host("bob")
    await eventually(lambda: not daemon.store.exists(f"{daemon.prefix}:left:bob"), "it has taken that in")
    assert len(bob.core.inbox.unread) == MESSAGES + 1
    assert await read(daemon) == [*ALL, "last"]


async def test_a_disk_that_cannot_be_read_is_no_loss(daemon: Daemon) -> None:
    """Whoever asks for the mail is told, with the exit code of mail that cannot be had now."""
    bob = await backlog(daemon)
    (path, *_) = files(daemon, "bob")
    content = path.read_bytes()
    obstruct(path)
    with pytest.raises(Exception, match="the mail of bob cannot be had now: cannot read in") as error:
        await read(daemon, limit=MESSAGES)
    assert getattr(error.value, "kind", "") == "unavailable"
    assert bob.core.inbox.losses.total == 0
    (path / "in the way").rmdir()
    path.rmdir()
    path.with_suffix(".aside").unlink()
    path.write_bytes(content)
    assert await read(daemon) == ALL


async def test_mail_that_is_going_to_the_disk_is_had_when_it_is_there(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes of it waits: taken before, it could not be confirmed, and would be read twice."""
    hang = Hang()
    write = Segments.write

    def hanging(self: Segments, number: int, messages: Sequence[Message]) -> None:
        hang.wait()
        write(self, number, messages)

    monkeypatch.setattr(Segments, "write", hanging)
    bob = await daemon.host("bob")
    hang.begin()
    for one in ALL:
        daemon.send("bob", one)
    await eventually(lambda: hang.waiting, "mail is going to the disk")
    reader = asyncio.create_task(read(daemon, limit=MESSAGES))
    looking = asyncio.create_task(read(daemon, peek=True, limit=MESSAGES))
    await eventually(lambda: bob.core.inbox.unread.wanted, "the reader has come")
    hang.let_go()
    assert (await looking)[: FEW.messages] == ALL[: FEW.messages]
    found = await reader
    while len(found) < MESSAGES:  # what was received after the reader
        found += await read(daemon)
    assert found == ALL


async def test_a_journal_that_was_removed_tells_of_what_is_on_the_disk_again(daemon: Daemon) -> None:
    await backlog(daemon)
    daemon.journal("bob").unlink()
    for n in range(MESSAGES, 2 * MESSAGES):
        daemon.send("bob", f"m{n}")
    bob = daemon.agent("bob")
    await eventually(lambda: len(bob.core.inbox.unread) == 2 * MESSAGES, "all are received")
    await settled(bob)
    await daemon.stop()
    await daemon.start()
    await daemon.host("bob")
    assert await read(daemon) == [f"m{n}" for n in range(2 * MESSAGES)]


async def test_more_than_the_disk_takes_waits_until_there_is_room(daemon: Daemon) -> None:
    """Else a flood to a slow disk is held in memory, all of it."""
    bob = await daemon.host("bob")
    unread = bob.core.inbox.unread
    unread.wanted += 1  # as if somebody brought mail into memory: meanwhile none can go to the disk
    count = 0
    while not unread.is_crowded():
        daemon.send("bob", f"m{count}")
        count += 1
        await eventually(lambda count=count: len(unread) == count, "it is received")  # type: ignore[misc]
    decided: list[int] = []

    def decide() -> list[Effect]:
        decided.append(unread.hot)
        return []

    taking_in = asyncio.create_task(bob.insist(decide, room=True))
    for _ in range(10):
        await bob.execute(list)  # others have their turns
    assert decided == []
    unread.wanted -= 1
    await taking_in
    assert not unread.is_crowded()
    assert decided[0] <= FEW.messages * FEW.crowd
    await settled(bob)
    assert await read(daemon) == [f"m{k}" for k in range(count)]
