"""Which messages an agent had before: their ids, so that none comes twice, and what is remembered of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meshd.core.message import Message
from meshd.core.origin import origin_of

# Of either kind: more than a stream's bound, so that reading a stream again from its start finds them all.
SEEN_WINDOW = 4096


class Seen(Mapping[str, str]):
    """By id what `origin_of` gives, of the newest messages that are not unread.

    Of private mail and of broadcasts as many each: much of the one does not push out the other, whose stream may be
    read again as well.
    """

    def __init__(self, private: Mapping[str, str] | None = None, broadcasts: Mapping[str, str] | None = None) -> None:
        self.private = dict(private or {})
        self.broadcasts = dict(broadcasts or {})

    def __getitem__(self, message_id: str) -> str:
        return self.private[message_id] if message_id in self.private else self.broadcasts[message_id]

    def __contains__(self, message_id: object) -> bool:
        return message_id in self.private or message_id in self.broadcasts

    def __iter__(self) -> Iterator[str]:
        yield from self.private
        yield from self.broadcasts

    def __len__(self) -> int:
        return len(self.private) + len(self.broadcasts)

    def had(self, message: Message) -> None:
        """It is unread no more."""
        self.add(message.id, origin_of(message), broadcast=message.kind == "broadcast")

    def add(self, message_id: str, origin: str, *, broadcast: bool) -> None:
        """As the newest of its kind."""
        kind, other = (self.broadcasts, self.private) if broadcast else (self.private, self.broadcasts)
        kind.pop(message_id, None)
        other.pop(message_id, None)
        kind[message_id] = origin
        while len(kind) > SEEN_WINDOW:
            del kind[next(iter(kind))]
