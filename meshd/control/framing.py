"""From bytes to lines, without a connection: what is kept of an unfinished line is bounded."""

from __future__ import annotations


class Lines:
    """The lines in a stream of bytes, however it is cut into pieces; at most `longest` bytes each, without the newline.

    At the first one that is longer the stream is over: `too_long` is true from then on, and nothing more is taken.
    """

    def __init__(self, longest: int) -> None:
        self.too_long = False
        self._longest = longest
        self._partial = bytearray()

    @property
    def held(self) -> int:
        """Bytes that are kept of a line whose end has not come yet; never more than `longest`."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that this piece ends, those before one that is too long included."""
        if self.too_long:
            return []
        *lines, rest = data.split(b"\n")
        if not lines:
            self._keep(rest)
            return []
        if self._partial:
            lines[0] = b"".join((self._partial, lines[0]))
            self._partial = bytearray()
        for k, line in enumerate(lines):
            if len(line) > self._longest:
                self.too_long = True
                return lines[:k]
        self._keep(rest)
        return lines

    def _keep(self, rest: bytes) -> None:
        if len(self._partial) + len(rest) > self._longest:
            self.too_long = True
            self._partial = bytearray()
        else:
            self._partial += rest
