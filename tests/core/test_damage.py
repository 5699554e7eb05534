"""What a damaged journal may have lost: it comes again, or is counted, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.agent import AgentCore
from meshd.core.clock import Wall
from meshd.core.effects import Commit, Effect
from meshd.core.inbox import StreamInfo
from meshd.core.message import Message
from meshd.core.records import Batch, Damaged, Read, Record
from tests.core.model import KEYS

NOW = Wall(1000.0)


def message(k: int) -> Message:
    """The kth entry of the stream, of one of two senders who count theirs."""
    return Message(
        id=f"m{k}", sender="ab"[k % 2] * 2, text="x", ts=1.0, at=f"{k}-0", sid="5e" if k % 2 else "5f", n=(k + 1) // 2
    )


def committed(core: AgentCore, effects: list[Effect]) -> list[Record]:
    records = [record for effect in effects if isinstance(effect, Commit) for record in effect.records]
    for record in records:
        core.apply(record)
    return records


def folded(records: list[Record]) -> tuple[AgentCore, list[Record]]:
    """A journal of these, read and mended, and what it has then."""
    core = AgentCore("bob", KEYS)
    for record in records:
        core.apply(record)
    mended = core.mend(NOW)
    for record in mended:
        core.apply(record)
    return core, [*records, *mended]


@given(st.data())
def test_it_comes_again_or_is_counted(data: st.DataObject) -> None:
    core, records, k = AgentCore("bob", KEYS), list[Record](), 0
    for size in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=8), "batches"):
        batch = [message(k + i + 1) for i in range(size)]
        k += size
        records += committed(core, core.receive(batch, batch[-1].at, NOW))
        if data.draw(st.booleans(), "reads"):
            ids = data.draw(st.lists(st.sampled_from(list(core.inbox.unread)), unique=True), "read")
            records += committed(core, core.mark_read(ids))
    first = data.draw(st.integers(0, len(records) - 1), "first damaged")
    number = data.draw(st.integers(1, 3), "damaged records")
    whole = records[first + number :]
    again, _ = folded([*records[:first], Damaged(new=True), *whole])
    kept = sorted(data.draw(st.sets(st.integers(1, k)), "what the store still has"))
    known = set(again.inbox.unread) | set(again.inbox.seen)
    behind = [message(one) for one in kept if one > int(again.inbox.position.at.partition("-")[0])]
    info = StreamInfo(length=len(kept), added=k, last=f"{k}-0")
    half = len(behind) // 2
    for part in [*filter(None, (behind[:half], behind[half:])), []]:
        cursor = part[-1].at if part else again.inbox.position.at
        committed(again, again.receive(part, cursor, NOW, info))
    everything = {f"m{one}" for one in range(1, k + 1)}
    found = set(again.inbox.unread) | set(again.inbox.seen)
    assert found == known | {f"m{one}" for one in kept if f"{one}-0" in {m.at for m in behind}}
    told = {one for record in whole if isinstance(record, Read) for one in record.ids}
    missing = everything - found - told
    assert again.inbox.losses.total <= len(missing)
    # Behind the last record of mail that is whole nothing tells how many there were but the senders' counts.
    if any(isinstance(record, Batch) and record.messages for record in whole):
        assert again.inbox.losses.total == len(missing)


def test_what_came_again_or_was_counted_is_not_counted_when_there_is_damage_before_it_another_time() -> None:
    """The marker of the first damage is damaged as well: the same mail is missing there once more."""
    for kept, lost in (([message(1)], 0), ([], 1)):
        core, records = AgentCore("bob", KEYS), list[Record]()
        for k in (1, 2):
            records += committed(core, core.receive([message(k)], f"{k}-0", NOW))
        for _ in range(2):
            older = [Damaged() if isinstance(record, Damaged) else record for record in records]
            core, records = folded([Damaged(new=True), *older[1:]])
            for part in (kept, []):
                info = StreamInfo(length=len(kept), added=2, last="2-0")
                cursor = part[-1].at if part else "2-0"
                records += committed(core, core.receive(part, cursor, NOW, info))
            assert core.inbox.losses.total == lost
            assert set(core.inbox.unread) == {"m2", *(m.id for m in kept)}


def test_what_came_again_and_was_read_then_is_not_missing_behind_a_later_damage() -> None:
    """The later one took something of no weight right before the first: the gap is the same."""
    core, records = AgentCore("bob", KEYS), list[Record]()
    for k in range(1, 4):
        records += committed(core, core.receive([message(k)], f"{k}-0", NOW))
        if k == 1:
            records += committed(core, core.mark_read(["m1"]))
    core, records = folded([*records[:2], Damaged(new=True), *records[3:]])  # m2 is gone
    records += committed(core, core.receive([message(2), message(3)], "3-0", NOW, StreamInfo(2, 3, "3-0")))
    records += committed(core, core.mark_read(["m2", "m3"]))
    again, _ = folded([*records[:2], Damaged(new=True), Damaged(), *records[3:]])
    committed(again, again.receive([], "3-0", NOW, StreamInfo(length=0, added=3, last="3-0")))
    assert again.inbox.losses.total == 0


def test_what_was_read_before_a_snapshot_that_is_damaged_is_not_missing() -> None:
    """Nothing tells any more up to where it had been read."""
    core = AgentCore("bob", KEYS)
    for k in range(1, 6):
        committed(core, core.receive([message(k)], f"{k}-0", NOW))
    committed(core, core.mark_read([f"m{k}" for k in range(1, 5)]))
    header, _, *unread = core.snapshot()
    more = committed(core, core.receive([message(6)], "6-0", NOW))
    again, _ = folded([header, Damaged(new=True), *unread, *more])
    for part in ([message(5), message(6)], []):
        committed(again, again.receive(part, "6-0", NOW, StreamInfo(length=2, added=6, last="6-0")))
    assert set(again.inbox.unread) == {"m5", "m6"}
    assert again.inbox.losses.total == 0


def test_what_was_read_is_not_missing_though_no_record_tells_where_it_stood() -> None:
    """All records of mail are damaged, and the store has removed what was read."""
    again, _ = folded([Damaged(new=True), Read(ids=["m3", "m4", "m5"])])
    info = StreamInfo(length=3, added=6, last="6-0")
    for part in ([message(1)], [message(2), message(6)], []):
        committed(again, again.receive(part, part[-1].at if part else "6-0", NOW, info))
    assert set(again.inbox.unread) == {"m1", "m2", "m6"}
    assert again.inbox.losses.total == 0
    committed(again, again.receive([message(10)], "10-0", NOW))  # the credit is no more: this is a loss
    assert again.inbox.losses.total == 1
