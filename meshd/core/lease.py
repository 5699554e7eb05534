"""The lease of one name at one daemon: wanted → held → doubtful → gone.

The store keeps who holds a name, for `TTL` seconds from when it was last asked for. A daemon knows of that only what
it was told, as of the moment in which it asked. From then on another daemon may take the name over by force. It tells
so in the name's stream and waits for the answer for longer than `SURE`; whoever was stopped, asleep or cut off in that
time hears of it late. So an answer is believed for `SURE` seconds: after that nothing is handed out, and no
confirmation taken, before the store was asked again. While the store cannot be asked, what was received may be handed
out for as long as the lease lasts, because nobody takes the name without force before.

No I/O and no clock: time comes in as `Now`, what is to be asked comes out as `Ask`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from meshd.core.clock import Mono, Wall

TTL = 180.0  # seconds that the store keeps a lease
RENEW_EVERY = 45.0  # seconds
SURE = 0.1  # seconds for which the store's answer is believed
# Seconds that a daemon which takes a name over waits for the previous holder's last word: more than `SURE`, so that
# what was handed out before the holder asked again is confirmed or not by then.
HANDOVER = 2.0


class Now(NamedTuple):
    """A moment, by both clocks: the wall clock goes on while a machine sleeps, and nobody can set the other one."""

    wall: Wall
    mono: Mono

    def since(self, then: Now) -> float:
        """Seconds from `then` until now, by the clock that shows more: a lease is never thought younger than it is."""
        return max(abs(self.wall - then.wall), self.mono - then.mono)


class LeaseState(enum.Enum):
    WANTED = "wanted"  # not known to be ours: nothing is received or handed out
    HELD = "held"  # ours, as the store said a moment ago
    DOUBTFUL = "doubtful"  # ours when the store was last asked: received, and asked again before it is handed out
    GONE = "gone"  # another daemon has it, or it was given up: the end


class Ask(enum.Enum):
    """What the store must be asked before something is done for the name."""

    NOTHING = "nothing"
    RENEW = "renew"
    ACQUIRE = "acquire"


class Lease:
    """What this daemon knows of its lease of one name.

    `alone`: no other daemon can reach the store, so that a lease which ran out while the store was away is nobody's.
    """

    def __init__(self, *, alone: bool = False) -> None:
        self._alone = alone
        self._proven: Now | None = None  # when that was asked which the store answered by "yours"
        self._ours = False
        self._gone = self.given_up = False
        self._yields = Mono(float("-inf"))

    # --- what the store answered ---

    def proven(self, asked: Now) -> None:
        """To a question of that moment the store answered that the name is ours."""
        if self._gone:
            return
        # Answers may come out of order: the latest question counts.
        if not self._ours or self._proven is None or asked.mono > self._proven.mono:
            self._proven = asked
        self._ours = True

    def excused(self, asked: Now) -> None:
        """The store is there and refuses to renew: nobody who asks is away, so that the lease is as good as it was."""
        if self._ours:
            self.proven(asked)

    def lost(self) -> None:
        """The store says that nobody holds the name, or somebody else does: it must be acquired anew."""
        self._ours = False

    def yield_until(self, then: Mono) -> None:
        """Another daemon has the name, and waits until then for our last word: what was handed out may be confirmed."""
        self._yields = then

    def end(self, *, given_up: bool = False) -> None:
        """Another daemon has the name, or it was given up: our last word was said."""
        self._ours = False
        self._gone = True
        self.given_up = given_up
        self._yields = Mono(float("-inf"))

    # --- what follows from that ---

    def state(self, now: Now) -> LeaseState:
        if self._gone:
            return LeaseState.GONE
        if not self._ours or not self._lasts(now):
            return LeaseState.WANTED
        assert self._proven is not None
        return LeaseState.HELD if now.since(self._proven) <= SURE else LeaseState.DOUBTFUL

    def _lasts(self, now: Now) -> bool:
        return self._proven is not None and now.since(self._proven) <= TTL

    @property
    def ours(self) -> bool:
        """Whether the store was last heard to say that the name is ours: worth renewing."""
        return self._ours

    @property
    def was_ours(self) -> bool:
        """Whether it was ever ours since this daemon has started."""
        return self._proven is not None

    @property
    def gone(self) -> bool:
        return self._gone

    def may_receive(self, now: Now) -> bool:
        """Whether entries may be taken in. What is taken in and not handed out harms nobody."""
        return self.state(now) in (LeaseState.HELD, LeaseState.DOUBTFUL)

    def may_hand_out(self, now: Now, *, reachable: bool) -> bool:
        """Whether mail may be handed out with no question before. `reachable`: the store."""
        state = self.state(now)
        if reachable:
            return state is LeaseState.HELD
        return state in (LeaseState.HELD, LeaseState.DOUBTFUL) or (self._alone and state is not LeaseState.GONE)

    def may_confirm(self, now: Now, *, reachable: bool) -> bool:
        """Whether a hand-over may be confirmed with no question before."""
        return self.may_hand_out(now, reachable=reachable) or self.yields_for(now.mono) > 0

    def yields_for(self, mono: Mono) -> float:
        """For so many seconds the new holder still waits for our last word."""
        return max(0.0, self._yields - mono)

    def asks(self, now: Now) -> Ask:
        """What the store must be asked before mail is handed out."""
        match self.state(now):
            case LeaseState.HELD:
                return Ask.NOTHING
            case LeaseState.DOUBTFUL:
                return Ask.RENEW
            case _:
                return Ask.ACQUIRE
