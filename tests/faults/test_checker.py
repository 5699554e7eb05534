"""The checker of the fault suite, by histories in which one thing is wrong: it names that one, and nothing else.

Longer than other files, because each of these histories is one to read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults import checker
from tests.faults.checker import judge
from tests.faults.history import (
    EVERYBODY,
    AnyEvent,
    Confirmed,
    Handed,
    Hosts,
    Intends,
    Logged,
    MayRepeat,
    Outcome,
    Recorder,
    Told,
    load,
)


class Run:
    """A history under construction: what was sent to bob, and what his readers were handed."""

    def __init__(self) -> None:
        self.events: list[AnyEvent] = [Hosts("bob")]
        self._seq = 0
        self._take = 0

    def sends(self, *fates: str, target: str = "bob", closing: bool = False) -> str:
        """One message of alice, with an outcome for each attempt; its id."""
        message_id = f"alice-{self._seq}"
        self.events.append(Intends("alice", target, message_id, self._seq, closing))
        self.events += [Outcome(message_id, fate) for fate in fates]
        self._seq += 1
        return message_id

    def some(self, count: int = 6) -> list[str]:
        return [self.sends("sent") for _ in range(count)]

    def hands(self, *ids: str, lost: int = 0, place: str = "b", name: str = "bob", sure: bool | None = True) -> None:
        """One hand-over; `sure` is None if it was never confirmed."""
        self._take += 1
        self.events.append(Handed(place, name, self._take, list(ids), lost))
        if sure is not None:
            self.events.append(Confirmed(self._take, sure))


def found(run: Run) -> list[tuple[str, int]]:
    return [(finding.kind, finding.count) for finding in judge(run.events).findings]


Planted = Callable[[Run], None]


def _nothing(run: Run) -> None:
    ids = run.some()
    run.hands(*ids[:3])
    run.hands(*ids[3:])


def _missing(run: Run) -> None:
    ids = run.some()
    run.hands(*ids[:2], *ids[3:])


def _missing_and_told(run: Run) -> None:
    ids = run.some()
    run.hands(*ids[:2], *ids[3:], lost=1)


def _half_told(run: Run) -> None:
    ids = run.some()
    run.hands(*ids[:2], *ids[4:], lost=1)


def _told_and_the_teller_died(run: Run) -> None:
    """Nobody heard it: it is told again, and is one loss."""
    ids = run.some()
    run.hands(ids[0], lost=1, sure=None)
    run.hands(ids[0], *ids[2:], lost=1)


def _told_perhaps(run: Run) -> None:
    ids = run.some()
    run.hands(*ids[1:], lost=1, sure=False)


def _never_told_to_a_reader_that_lived(run: Run) -> None:
    ids = run.some()
    run.hands(ids[0], lost=1, sure=None)
    run.hands(ids[0], *ids[2:])


def _falsely_told(run: Run) -> None:
    run.hands(*run.some(), lost=2)


def _unknown_and_there(run: Run) -> None:
    run.hands(run.sends("unknown"), *run.some())


def _unknown_and_not_there(run: Run) -> None:
    run.sends("unknown")
    run.hands(*run.some())


def _unknown_and_told_as_lost(run: Run) -> None:
    run.sends("unknown")
    run.hands(*run.some(), lost=1)


def _intended_and_no_outcome(run: Run) -> None:
    run.sends()
    run.hands(*run.some())


def _repeated_until_acknowledged_and_missing(run: Run) -> None:
    run.sends("unknown", "refused", "sent")
    run.hands(*run.some())


def _unknown_then_refused_and_there(run: Run) -> None:
    """The first attempt may have been written: no refusal takes that back."""
    run.hands(run.sends("unknown", "refused"), *run.some())


def _unknown_and_late(run: Run) -> None:
    """Nobody heard of it again: its place is not promised."""
    late = run.sends("unknown")
    run.hands(*run.some(), late)


def _refused_and_there(run: Run) -> None:
    run.hands(run.sends("refused"), *run.some())


def _busy_and_there(run: Run) -> None:
    run.hands(*run.some(), run.sends("refused", "refused"))


def _never_sent(run: Run) -> None:
    run.hands(*run.some(), "mallory-1")


def _for_another(run: Run) -> None:
    run.events.append(Hosts("carol"))
    other = run.sends("sent", target="carol")
    run.hands(*run.some(), other)
    run.hands(other, name="carol")


def _read_again(run: Run) -> None:
    ids = run.some()
    run.hands(*ids)
    run.hands(ids[4])


def _read_at_two_places(run: Run) -> None:
    ids = run.some()
    run.hands(*ids)
    run.hands(*ids[:2], place="a", sure=None)


def _held_at_two_places_and_confirmed_at_both(run: Run) -> None:
    ids = run.some()
    run.events += [Handed("a", "bob", 100, ids), Handed("b", "bob", 101, ids), Confirmed(100), Confirmed(101)]


def _held_at_one_place_and_read_at_the_other(run: Run) -> None:
    ids = run.some()
    run.hands(*ids, sure=None)
    run.hands(*ids, place="a")


def _repeated_where_it_may_be(run: Run) -> None:
    ids = run.some()
    run.hands(*ids, place="a")
    run.events.append(MayRepeat("b", "bob"))
    run.hands(*ids)
    run.events.append(MayRepeat("b", "bob", over=True))


def _repeated_where_it_no_longer_may_be(run: Run) -> None:
    ids = run.some()
    run.hands(*ids, place="a")
    run.events += [MayRepeat("b", "bob"), MayRepeat("b", "bob", over=True)]
    run.hands(ids[0])


def _twice_in_one_answer(run: Run) -> None:
    ids = run.some()
    run.hands(*ids, ids[0])


def _again_after_a_reader_died(run: Run) -> None:
    ids = run.some()
    run.hands(*ids[:3], sure=None)
    run.hands(*ids)


def _again_after_a_confirmation_without_an_answer(run: Run) -> None:
    ids = run.some()
    run.hands(*ids, sure=False)
    run.hands(*ids)


def _not_again_after_a_reader_died(run: Run) -> None:
    ids = run.some()
    run.hands(*ids[:3], sure=None)
    run.hands(*ids[3:])


def _swapped(run: Run) -> None:
    ids = run.some()
    run.hands(ids[1], ids[0], *ids[2:])


def _swapped_over_two_hand_overs(run: Run) -> None:
    ids = run.some()
    run.hands(*ids[1:])
    run.hands(ids[0])


def _a_broadcast_is_missing_for_one(run: Run) -> None:
    run.events.append(Hosts("carol"))
    to_all = run.sends("sent", target=EVERYBODY)
    run.hands(to_all)
    run.hands(name="carol")


def _a_broadcast_from_before(run: Run) -> None:
    to_all = run.sends("sent", target=EVERYBODY)
    run.events.append(Hosts("carol"))
    run.hands(to_all)


def _logged_twice(run: Run) -> None:
    ids = run.some()
    run.hands(*ids)
    run.events.append(Logged("b", "bob", [*ids, ids[2]]))


def _not_logged(run: Run) -> None:
    ids = run.some()
    run.hands(*ids)
    run.events.append(Logged("b", "bob", ids[1:]))


def _status_tells_otherwise(run: Run) -> None:
    ids = run.some()
    run.hands(*ids[1:], lost=1)
    run.events += [Logged("b", "bob", ids[1:], lost=1), Told("b", "bob", 0)]


PLANTED: list[tuple[Planted, list[tuple[str, int]]]] = [
    (_nothing, []),
    (_missing, [(checker.SILENT, 1)]),
    (_missing_and_told, []),
    (_half_told, [(checker.SILENT, 1)]),
    (_told_and_the_teller_died, []),
    (_told_perhaps, []),
    (_never_told_to_a_reader_that_lived, [(checker.SILENT, 1)]),
    (_falsely_told, [(checker.FALSE, 2)]),
    (_unknown_and_there, []),
    (_unknown_and_not_there, []),
    (_unknown_and_told_as_lost, []),
    (_intended_and_no_outcome, []),
    (_repeated_until_acknowledged_and_missing, [(checker.SILENT, 1)]),
    (_unknown_then_refused_and_there, []),
    (_unknown_and_late, []),
    (_refused_and_there, [(checker.REFUSED, 1)]),
    (_busy_and_there, [(checker.REFUSED, 1)]),
    (_never_sent, [(checker.FOREIGN, 1)]),
    (_for_another, [(checker.ELSEWHERE, 1)]),
    (_read_again, [(checker.TWICE, 1)]),
    (_read_at_two_places, [(checker.TWICE, 2)]),
    (_held_at_two_places_and_confirmed_at_both, [(checker.TWICE, 6)]),
    (_held_at_one_place_and_read_at_the_other, []),
    (_repeated_where_it_may_be, []),
    (_repeated_where_it_no_longer_may_be, [(checker.TWICE, 1)]),
    (_twice_in_one_answer, [(checker.TWICE, 1)]),
    (_again_after_a_reader_died, []),
    (_again_after_a_confirmation_without_an_answer, []),
    (_not_again_after_a_reader_died, [(checker.TAKEN, 3)]),
    (_swapped, [(checker.ORDER, 1)]),
    (_swapped_over_two_hand_overs, [(checker.ORDER, 1)]),
    (_a_broadcast_is_missing_for_one, [(checker.SILENT, 1)]),
    (_a_broadcast_from_before, []),
    (_logged_twice, [(checker.LOG_TWICE, 1)]),
    (_not_logged, [(checker.LOG_MISSING, 1)]),
    (_status_tells_otherwise, [(checker.TOLD_APART, 1)]),
]


@pytest.mark.parametrize(("plant", "expected"), PLANTED, ids=[plant.__name__.strip("_") for plant, _ in PLANTED])
def test_it_names_what_was_planted_and_nothing_else(plant: Planted, expected: list[tuple[str, int]]) -> None:
    run = Run()
    plant(run)
    assert found(run) == expected


@pytest.mark.parametrize(
    ("gone", "where"),
    [([0, 1], "2 prefix"), ([2], "1 middle"), ([4, 5], "2 end"), ([0, 3, 5], "1 prefix, 1 middle, 1 end")],
)
def test_it_says_where_a_loss_was(gone: list[int], where: str) -> None:
    """Before all that came of its sender, between, or after; the closing message is no part of it."""
    run = Run()
    ids = run.some()
    closing = run.sends("sent", closing=True)
    run.hands(*(one for n, one in enumerate(ids) if n not in gone), closing)
    [finding] = judge(run.events).findings
    assert f"told; {where}, alice-" in finding.detail


def test_where_everything_is_kept_a_loss_is_one_also_if_it_was_told() -> None:
    run = Run()
    ids = run.some()
    run.hands(*ids[1:], lost=1)
    [finding] = judge(run.events, kept=True).findings
    assert (finding.kind, finding.count) == (checker.NOT_KEPT, 1)


def test_everything_lost_is_the_end_of_it() -> None:
    run = Run()
    run.some(3)
    assert "3 end" in judge(run.events).findings[0].detail


def test_what_it_counts() -> None:
    run = Run()
    ids = [*run.some(), run.sends("unknown"), run.sends("unknown", "sent"), run.sends("refused")]
    run.hands(*ids[1:6], ids[7], lost=1)
    verdict = judge(run.events)
    assert (verdict.acknowledged, verdict.unknown, verdict.refused) == (7, 1, 1)
    assert (verdict.received, verdict.lost, verdict.told, verdict.findings) == (6, 1, 1, [])


_FATES = st.lists(st.sampled_from(["sent", "unknown", "refused"]), max_size=3).map(tuple)


@given(st.data())
def test_a_mesh_that_keeps_its_promises_is_never_accused(data: st.DataObject) -> None:
    """Whatever is sent, lost and told, and whichever readers die: what the contract allows is no finding."""
    run = Run()
    ids = [(run.sends(*fates), fates) for fates in data.draw(st.lists(_FATES, max_size=12))]
    may_be_there = [one for one, fates in ids if "sent" in fates or "unknown" in fates or not fates]
    there = [one for one in may_be_there if data.draw(st.booleans())]
    lost = sum("sent" in fates and one not in there for one, fates in ids)
    unread = list(there)
    while unread:
        taken, sure = unread[: data.draw(st.integers(1, 4))], data.draw(st.sampled_from([True, False, None]))
        run.hands(*taken, sure=sure, place=data.draw(st.sampled_from("ab")))
        if sure is not None:
            del unread[: len(taken)]
    if lost:
        run.hands(lost=lost)
    assert found(run) == []


def test_a_history_is_judged_from_its_file_as_well(tmp_path: Path) -> None:
    """Also without its last line, if that was not written to its end."""
    run = Run()
    _half_told(run)
    recorder = Recorder(tmp_path / "history.jsonl")
    recorder.write(*run.events)
    recorder.close()
    with open(recorder.path, "ab") as file:
        file.write(b'{"event":"handed","pla')
    assert judge(load(recorder.path)) == judge(run.events)
