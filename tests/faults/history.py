"""What a run knows of itself: every intent and outcome, one JSON line each, synced before anything follows from it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TypeAlias

import msgspec

EVERYBODY = "*"


class Event(msgspec.Struct, tag_field="event", omit_defaults=True, kw_only=True):
    """Base of all. `at` is in seconds of the monotonic clock, and is set when it is recorded."""

    at: float = 0.0


class Hosts(Event, tag="hosts"):
    """From now on the name gets broadcasts, wherever it is."""

    name: str


class Intends(Event, tag="intends"):
    """A sender is about to send. `seq` counts its messages, to whomever; `closing`: the last one to this target."""

    sender: str
    target: str
    id: str
    seq: int
    closing: bool = False


class Outcome(Event, tag="outcome"):
    """How one attempt ended: `sent`, `refused` (nothing happened) or `unknown`; `why` is the kind of the error."""

    id: str
    fate: str
    why: str = ""


class Handed(Event, tag="handed"):
    """A reader at this place was given these, and told of so many losses. `take` numbers the hand-overs of a run."""

    place: str
    name: str
    take: int
    ids: list[str]
    lost: int = 0


class Confirmed(Event, tag="confirmed"):
    """The hand-over was confirmed, and the daemon has said so; not `sure`: it was asked to, and gave no answer."""

    take: int
    sure: bool = True


class Logged(Event, tag="logged"):
    """What the notify log has at the end: the ids of its lines in order, and how many losses they tell of. Not
    `whole`: the oldest file of it may have been dropped."""

    place: str
    name: str
    ids: list[str]
    lost: int = 0
    whole: bool = True


class Told(Event, tag="told"):
    """What `status` says of a name at the end."""

    place: str
    name: str
    lost: int


class MayRepeat(Event, tag="may_repeat"):
    """From now on (or, `over`, no longer) this place may hand out what was read at another: they cannot learn of each
    other, and its lease still runs."""

    place: str
    name: str
    over: bool = False


class Note(Event, tag="note"):
    """For whoever reads the history: which fault came when."""

    text: str


AnyEvent: TypeAlias = Hosts | Intends | Outcome | Handed | Confirmed | Logged | Told | MayRepeat | Note

_DECODER: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


class Recorder:
    """The history of one run, in a file and in memory. Any thread may write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[AnyEvent] = []
        self.came = threading.Condition()  # something was recorded
        self._handed: set[tuple[str, str]] = set()  # name, id
        self._sent: set[str] = set()
        self._takes = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *events: AnyEvent) -> None:
        """Record them in this order. Returns when they are on the disk."""
        with self.came:
            for event in events:
                event.at = time.monotonic()
                self.events.append(event)
                if isinstance(event, Handed):
                    self._handed.update((event.name, message_id) for message_id in event.ids)
                elif isinstance(event, Outcome) and event.fate == "sent":
                    self._sent.add(event.id)
            os.write(self._fd, b"".join(msgspec.json.encode(event) + b"\n" for event in events))
            self.came.notify_all()
        os.fdatasync(self._fd)

    def note(self, text: str) -> None:
        self.write(Note(text))

    def next_take(self) -> int:
        with self.came:
            self._takes += 1
            return self._takes

    def was_handed(self, name: str, message_id: str) -> bool:
        return (name, message_id) in self._handed

    @property
    def handed(self) -> int:
        """How many messages were handed out, each counted once for a name."""
        return len(self._handed)

    @property
    def sent(self) -> int:
        """How many were acknowledged."""
        return len(self._sent)

    def wait_for_sent(self, count: int, deadline: float) -> bool:
        """Whether so many were acknowledged within `deadline` seconds."""
        with self.came:
            return self.came.wait_for(lambda: len(self._sent) >= count, deadline)

    def wait_for_handed(self, name: str, message_id: str, deadline: float) -> bool:
        with self.came:
            return self.came.wait_for(lambda: (name, message_id) in self._handed, deadline)

    def close(self) -> None:
        os.close(self._fd)


def load(path: Path) -> list[AnyEvent]:
    """A recorded history. A last line that was not written to its end is left out."""
    lines = path.read_bytes().split(b"\n")
    return [_DECODER.decode(line) for line in lines[:-1]]
