"""Numbers of the wire, and a message on its way out."""

from __future__ import annotations

from typing import NamedTuple

MAXLEN = 2000  # entries that a private stream takes; those for all keep about so many
ANSWERS = 100  # entries that a short-lived stream keeps: pongs, replies, news of them
GATE_WINDOW = 10  # seconds
DEDUPE_TTL = 600
DEDUPE_MOST = 50_000  # messages of one daemon whose repetition is recognised, however fast it sends
DEDUPE_PAGE = 100  # older ones that are forgotten at once
STREAM_TTL = 30 * 86400  # seconds that a private stream which nobody holds outlives its last entry
READ_TTL = 30 * 86400  # seconds that the word is kept of how far a name was read, and what its last holder has left
READ_RECORD = 256 << 10  # bytes of that word: ours has up to 3,000 ids
COUNT_TTL = 86400  # seconds after its last send that a pair's count goes on
REPLY_TTL = 600
ASKED_TTL = 86400  # for so long a reply that nobody waits for becomes a message
PONG_TTL = 60
TAKEN_TTL = 60


class Outgoing(NamedTuple):
    """A message to send. `fields` are further wire fields, flat: name, value, name, value …

    `asks`: for so many seconds it is remembered how this request stands; 0 for what is none.
    """

    id: str
    sender: str
    target: str
    text: str
    private: bool = False
    fields: tuple[str, ...] = ()
    gated: bool = True
    asks: int = 0


class Receipt(NamedTuple):
    """What the store said: `again` if the id was there already, `held` if somebody holds the target's name."""

    id: str
    again: bool
    held: bool
    rate: int
    observed: bool
