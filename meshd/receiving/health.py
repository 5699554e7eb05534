"""How one agent is: what keeps it from its mail, and since when."""

from __future__ import annotations

from meshd.observing.events import EventHub
from meshd.observing.outage import Troubles
from meshd.system import clock

# Where a trouble comes from, the one that is shown first of several.
JOURNAL, SEGMENTS, READER, STORE = "journal", "segments", "reader", "store"
BROADCASTS, NOTIFY = "broadcasts", "notify log"
_ORDER = (JOURNAL, SEGMENTS, READER, STORE, BROADCASTS, NOTIFY)
# Seconds that a reader may spend on one turn, far longer than any wait in it lasts: BLOCK, a reply, a backoff, a sync.
STALLED = 120.0


class Health:
    """The troubles of one agent, one for each source. Each is an event, and a line of the log once."""

    def __init__(self, name: str, events: EventHub, troubles: Troubles) -> None:
        self.caught_up = False
        self.since = clock.wall()  # so long it receives, catches up, or is in trouble
        self.restarts = 0
        self.last_turn = clock.mono()  # of the reader
        self.last_received = 0.0
        self.quarantined = 0  # entries that could not be taken in, since the daemon's start
        self.quarantined_untold = 0  # of them, those that nobody was told of who has read the inbox
        self._name = name
        self._events = events
        self._log = troubles
        self._troubles: dict[str, str] = {}
        self._ended = False

    @property
    def trouble(self) -> str | None:
        """What it suffers from, in a sentence."""
        return next((self._troubles[source] for source in _ORDER if source in self._troubles), None)

    @property
    def of_store(self) -> bool:
        """Whether that is the store's trouble: then it is every agent's, while the store is down."""
        return next((source for source in _ORDER if source in self._troubles), None) == STORE

    def of(self, source: str) -> str | None:
        """The trouble that comes from there."""
        return self._troubles.get(source)

    def say(self, source: str, text: str, *, exc_info: bool = False) -> None:
        """It suffers from this now. Of an agent that has ended nobody would say that it is over."""
        if self._ended:
            return
        if not self._troubles:
            self.since = clock.wall()
        if self._troubles.get(source) == text:
            return
        self._troubles[source] = text
        if self.trouble == text:
            self._events.publish("agent.trouble", agent=self._name, text=text)
        self._tell(exc_info=exc_info)

    def well(self, *sources: str) -> None:
        """Nothing of that any more."""
        if not [source for source in sources if self._troubles.pop(source, None)] or self._ended:
            return
        if not self._troubles:
            self.since = clock.wall()
        self._tell()

    def end(self) -> None:
        self._ended = True
        self._log.tell(self._name, None)

    def _tell(self, *, exc_info: bool = False) -> None:
        # The store's own trouble is in the log as one line, of the store.
        self._log.tell(self._name, None if self.of_store else self.trouble, exc_info=exc_info)

    def set_caught_up(self, caught_up: bool) -> None:
        if caught_up != self.caught_up:
            self.since = clock.wall()
        self.caught_up = caught_up

    def put_aside(self, entries: int) -> None:
        """So many entries could not be taken in."""
        self.quarantined += entries
        self.quarantined_untold += entries

    def turned(self) -> None:
        """Its reader has come round."""
        self.last_turn = clock.mono()

    def stalled(self, mono: float) -> bool:
        """Whether its reader should have come round by now, the store being up. `mono` in monotonic seconds."""
        return mono - self.last_turn > STALLED
