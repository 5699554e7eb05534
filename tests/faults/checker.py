"""Judges a history by what the contract promises of delivery. Knows nothing of how it came about.

A message that was acknowledged is received, or is among those that were told as LOST (which only a store that went
back, or somebody else's trimming, may bring about); what was refused is nowhere; what has an unknown outcome may be
there, may be missing, and may be counted as lost. What was confirmed is handed to nobody again, wherever: all readers
of a name are one history. What was handed and not confirmed comes again. Each sender's acknowledged messages to one
target are first handed out in the order of their sending.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.faults.case import Case, Mail
from tests.faults.history import EVERYBODY, AnyEvent, Handed, MayRepeat

# What may be found. A run fails by any of these …
SILENT = "lost without a word"
FALSE = "told as lost, and not lost"
NOT_KEPT = "acknowledged, and lost"
REFUSED = "refused, and there"
FOREIGN = "never sent, and there"
TWICE = "handed out again after it was read"
ORDER = "out of order"
TAKEN = "read before it was handed over"
ELSEWHERE = "handed to another name"
# … and these are said: the notify log and `status` are hints.
LOG_TWICE = "twice in the notify log"
LOG_MISSING = "not in the notify log"
TOLD_APART = "another count of losses in status or notify log"

VIOLATIONS = (SILENT, FALSE, NOT_KEPT, REFUSED, FOREIGN, TWICE, ORDER, TAKEN, ELSEWHERE)
OF_THE_END = (SILENT, FALSE, NOT_KEPT, TAKEN)  # known when all was read
PLACES = ("prefix", "middle", "end")
_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """So many messages of one name. `detail` names some."""

    kind: str
    count: int
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.count} ({self.detail})"


@dataclass(frozen=True)
class Verdict:
    """What a history comes to. `lost` are the acknowledged messages that nobody was handed, `told` the losses that a
    reader was told of for certain."""

    acknowledged: int
    unknown: int
    refused: int
    received: int
    lost: int
    told: int
    findings: list[Finding]

    @property
    def violations(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind in VIOLATIONS]

    def count(self, kind: str) -> int:
        return sum(finding.count for finding in self.findings if finding.kind == kind)


def judge(events: Iterable[AnyEvent], *, kept: bool = False) -> Verdict:
    """The verdict on a whole history, after all was quiet and every name was read to its end.

    `kept`: nothing happened that may cost an acknowledged message, told or not.
    """
    history = Case(events)
    findings: list[Finding] = []
    lost = told = received = 0
    for name in history.names():
        mail = history.mail.get(name, Mail(name))
        for take in mail.takes:
            if take.lost and take.take in history.confirmed:
                mail.perhaps_told += take.lost
                mail.told += take.lost if history.confirmed[take.take] else 0
        wanted = list(history.sent_to(name))
        missing = [i for i in wanted if history.fate(i) == "sent" and i not in mail.first]
        lost += len(missing)
        told += mail.told
        received += len(mail.first)
        findings += _losses(history, mail, wanted, missing)
        if kept and missing:
            where = _where(history, mail, wanted, missing)
            findings.append(Finding(NOT_KEPT, len(missing), f"{name}: {mail.told} told; {where}"))
        findings += _strangers(history, mail, set(wanted))
        findings += _disorder(history, mail)
        findings += _untold(history, mail)
    findings += _again(history)
    findings += _hints(history)
    fates = Counter(history.fate(message_id) for message_id in history.sends)
    return Verdict(fates["sent"], fates["unknown"], fates["refused"], received, lost, told, findings)


def _losses(history: Case, mail: Mail, wanted: Sequence[str], missing: Sequence[str]) -> Iterator[Finding]:
    """What is missing, against what was told: what may have been sent may be among the losses, too."""
    may = sum(history.fate(i) == "unknown" and i not in mail.first for i in wanted)
    if len(missing) > mail.perhaps_told:
        where = _where(history, mail, wanted, missing)
        count = len(missing) - mail.perhaps_told
        yield Finding(SILENT, count, f"{mail.name}: {len(missing)} missing, {mail.perhaps_told} told; {where}")
    elif mail.told > len(missing) + may:
        count = mail.told - len(missing) - may
        yield Finding(FALSE, count, f"{mail.name}: {mail.told} told, {len(missing)} missing, {may} unknown")


def _where(history: Case, mail: Mail, wanted: Sequence[str], missing: Sequence[str]) -> str:
    """How many of the missing ones were sent before all that its sender's target has of it, between, and after."""
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for message_id in wanted:
        send = history.sends[message_id]
        if history.fate(message_id) == "sent" and not send.closing:
            lines[send.sender, send.target].append(message_id)
    gone, places = set(missing), Counter[str]()
    for line in lines.values():
        there = [n for n, message_id in enumerate(line) if message_id not in gone]
        first, last = (there[0], there[-1]) if there else (len(line), -1)
        for n, message_id in enumerate(line):
            if message_id in gone:
                places["end" if n > last else "prefix" if n < first else "middle"] += 1
    return ", ".join([*(f"{places[place]} {place}" for place in PLACES if places[place]), _few(missing)])


def _strangers(history: Case, mail: Mail, wanted: set[str]) -> Iterator[Finding]:
    """What is there and should not be."""
    found: dict[str, list[str]] = defaultdict(list)
    for message_id in mail.first:
        if message_id not in history.sends:
            found[FOREIGN].append(message_id)
        elif history.fate(message_id) == "refused":
            found[REFUSED].append(message_id)
        elif message_id not in wanted and history.sends[message_id].target != EVERYBODY:
            found[ELSEWHERE].append(message_id)
    for kind, ids in found.items():
        yield Finding(kind, len(ids), f"{mail.name}: {_few(ids)}")


def _disorder(history: Case, mail: Mail) -> Iterator[Finding]:
    """Those that were handed out after one that their sender had sent later."""
    latest: dict[tuple[str, str], int] = {}
    late: list[str] = []
    for message_id in mail.first:
        send = history.sends.get(message_id)
        if send is None or history.fate(message_id) != "sent":
            continue  # the place of what nobody heard of again is not promised
        line = send.sender, send.target
        if send.seq < latest.get(line, -1):
            late.append(message_id)
        latest[line] = max(send.seq, latest.get(line, -1))
    if late:
        yield Finding(ORDER, len(late), f"{mail.name}: {_few(late)}")


def _untold(history: Case, mail: Mail) -> Iterator[Finding]:
    """Those that were handed out once or more, never confirmed, and yet not there at the end."""
    read = {message_id for take in mail.takes if take.take in history.confirmed for message_id in take.ids}
    taken = [message_id for message_id in mail.first if message_id not in read]
    if taken:
        yield Finding(TAKEN, len(taken), f"{mail.name}: {_few(taken)}")


def _again(history: Case) -> Iterator[Finding]:
    """Those that came again after they were read, or twice in one answer."""
    read: dict[str, set[str]] = defaultdict(set)
    takes: dict[int, Handed] = {}
    excused: set[tuple[str, str]] = set()
    again: dict[str, dict[str, str]] = defaultdict(dict)  # name -> id -> where it was handed out again
    for event in history.order:
        if isinstance(event, MayRepeat):
            (excused.discard if event.over else excused.add)((event.place, event.name))
        elif isinstance(event, Handed):
            if (event.place, event.name) in excused:
                continue
            takes[event.take] = event
            for message_id, count in Counter(event.ids).items():
                if count > 1 or message_id in read[event.name]:
                    again[event.name][message_id] = event.place
        elif event.sure and event.take in takes:
            take = takes[event.take]
            for message_id in set(take.ids) & read[take.name]:
                again[take.name].setdefault(message_id, take.place)  # confirmed at two places
            read[take.name].update(take.ids)
    for name, found in again.items():
        places = ", ".join(sorted(set(found.values())))
        yield Finding(TWICE, len(found), f"{name}, at {places}: {_few(list(found))}")


def _hints(history: Case) -> Iterator[Finding]:
    """What the notify logs and `status` say otherwise than the inboxes."""
    places = Counter(log.name for log in history.logs)
    for log in history.logs:
        twice = [message_id for message_id, count in Counter(log.ids).items() if count > 1]
        if twice:
            yield Finding(LOG_TWICE, len(twice), f"{log.name} at {log.place}: {_few(twice)}")
        if not log.whole or places[log.name] > 1 or log.name not in history.mail:
            continue
        there = set(log.ids)
        missing = [message_id for message_id in history.mail[log.name].first if message_id not in there]
        if missing:
            yield Finding(LOG_MISSING, len(missing), f"{log.name}: {_few(missing)}")
    counts = [(log.name, log.lost, "notify log") for log in history.logs if log.whole]
    for name, count, where in counts + [(said.name, said.lost, "status") for said in history.statuses]:
        mail = history.mail.get(name, Mail(name))
        if places[name] == 1 and not mail.told <= count <= mail.perhaps_told:
            yield Finding(TOLD_APART, abs(count - mail.told), f"{name}: {mail.told} in the inbox, {count} in {where}")


def _few(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
