"""What stands in an agent's journal: the state is the fold of these records, in order.

A record is decided first, then written and synced, then applied; so what is in memory is on the disk, and a
restart after a crash at any point arrives at the same state. One record holds a batch's messages and the
cursor behind them, which is why the two cannot disagree.
"""

from __future__ import annotations

import msgspec

from meshd.core.message import Message

PLAIN = 1  # the format of a journal that has all of the unread mail in itself, as every version can read it
FORMAT = 2  # of one that has told some of it to be in segments, beside the journal
UNKNOWN = -1  # as the index of a position: the stream went back, and is read again from its start


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in the private stream: an entry id, and how many entries were ever added up to it."""

    at: str = "0-0"
    index: int = 0


class Segment(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Unread messages of one kind that lie in a file of their own: what is known of them without looking there.

    `count` of messages; `size` in bytes of their texts; `first`: the place of the first of them; `low`, `high`: the
    least and the greatest of their entry ids. `ids`: their ids, and what is remembered of each (see `Origin`): of the
    newest segments alone.
    """

    number: int
    broadcasts: bool = False
    count: int
    size: int
    first: Position
    low: str
    high: str
    senders: list[str]
    ids: dict[str, str] = {}


class Entry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A reply owed to this agent. Times are wall seconds; `due` is when something happens next, 0 for never.

    `after` and `after_group` are entry ids in the agent's own stream and in the group: where these ended when the entry
    was opened, as far as that is known. Mail up to there is older, and answers nothing. The store gave all these ids:
    no clock is asked, neither a sender's nor ours.
    """

    id: str
    to: str
    text: str
    sent: float
    deadline: float
    due: float
    state: str = "open"  # open, responded, escalated
    pings: int = 0
    unsent: bool = False  # the re-ping or the escalation was decided, its sending was not confirmed
    after: str = "0-0"
    after_group: str = "0-0"
    bounced: int = 0  # so many re-pings could not be sent


class _Record(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="t"):
    pass


class Header(_Record, tag="journal", omit_defaults=False):
    """First line of every journal. A newer format is refused, the file untouched. 0.2 wrote no number: it is 1.

    `compacted`: a snapshot follows.
    """

    name: str
    format: int = 1
    compacted: bool = False


class Hole(msgspec.Struct, omit_defaults=True):
    """What a damaged journal may have lost: so many messages of the private stream, none behind that entry.

    With a number below zero so many were read of which nothing tells where they stood: what is missing may be those.
    """

    to: str = "0-0"
    missing: int = 0


class Damaged(_Record, tag="damaged"):
    """Here stood records that are damaged. `new`: that was found just now, and what follows knows nothing of it."""

    new: bool = False


class Batch(_Record, tag="batch"):
    """One read from the store. `offset`: the notify log's size before this batch's lines were appended."""

    now: float = 0.0
    position: Position | None = None
    group: str | None = None
    messages: list[Message] = []
    seen: list[str] = []  # ids handled without becoming inbox entries
    origins: dict[str, str] = {}  # what is remembered of those of them that can be answered
    counts: dict[str, int] = {}
    lost: int = 0
    unsure: dict[str, int] | None = None  # all of it, if it changed
    explained: int | None = None  # what an older version wrote instead: one number for all senders
    lines: list[str] = []  # notify lines that no message of the batch gives
    offset: int = 0
    went_back: str | None = None  # the private stream lost its end: the last id that it has by now
    hole: Hole | None = None  # what of a damaged journal is still to be found, if that changed


class Read(_Record, tag="read"):
    """These were handed to the agent, and the hand-over was confirmed."""

    ids: list[str]
    lost: int = 0  # so many of the losses were told, too


class Moved(_Record, tag="moved"):
    """The name was hosted elsewhere in between: go on where it was read there."""

    position: Position
    group: str | None = None
    read_to: str = "0-0"
    read_ids: list[str] = []
    broadcasts_to: str | None = None  # broadcasts were read up to there; without it those of `read_ids` alone
    lost: int = 0  # so many losses were counted there, and nobody was told of them
    counted_to: str = "0-0"  # up to that entry of the private stream
    # Private mail before that entry may never have come to those who had the name since: whether it was read, only the
    # disks know that have it.
    gone_to: str = "0-0"
    entries: list[Entry] = []  # pending ones that agent-mesh 0.1 left: in one record with the place where it stopped


class Opened(_Record, tag="opened"):
    entry: Entry


class Pinged(_Record, tag="pinged"):
    """A re-ping (`k` 1 to 4) or the escalation (`k` 5) was decided at `now`."""

    id: str
    k: int
    now: float


class Sent(_Record, tag="sent"):
    """What `Pinged` decided was acknowledged by the store at `now`; or it `bounced`, until what follows was due."""

    id: str
    now: float
    bounced: bool = False


class Closed(_Record, tag="closed"):
    """These entries are settled, or were never sent."""

    ids: list[str]


class Snapshot(_Record, tag="snapshot"):
    """The whole state but the unread mail, which follows in its order; written when a journal is compacted."""

    position: Position
    group: str | None = None
    seen: dict[str, str] = {}  # of private mail; of an older version, of all
    seen_broadcasts: dict[str, str] = {}
    read_above: list[tuple[str, str]] = []
    group_above: list[tuple[str, str]] = []
    read_elsewhere: list[str] = []
    counts: dict[str, int] = {}
    unsure: dict[str, int] = {}
    explained: int = 0  # as in a batch
    counted_to: str = "0-0"  # as in `Moved`
    hole: Hole | None = None  # as in a batch
    lost_total: int = 0
    lost_untold: int = 0
    segment: int = 0  # the number of the newest segment that there ever was
    entries: list[Entry] = []


class Unread(_Record, tag="unread"):
    """Unread messages of a compacted journal."""

    messages: list[Message]


class Spilled(_Record, tag="spilled"):
    """These messages are in a segment from now on; in a compacted journal: behind those that were told before."""

    segment: Segment


class Loaded(_Record, tag="loaded"):
    """What a segment had is in the journal again. `lost`: so many of its messages could not be read."""

    number: int
    messages: list[Message]
    lost: int = 0


Record = (
    Header | Damaged | Batch | Read | Moved | Opened | Pinged | Sent | Closed | Snapshot | Unread | Spilled | Loaded
)

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Record).decode
