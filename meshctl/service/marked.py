"""A file that we write and its owner may edit: a line in it tells which of the two wrote last.

The line holds the hash of all other lines. What was edited is never overwritten unasked, and what is not ours is
never removed.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import NamedTuple

from meshctl.install.files import NotChanged, back_up, read, write
from meshd.core.text import one_line

_WORDS = "Written by meshctl service install; do not edit this line: "
_LINE = re.compile(rf".*{_WORDS}sha256 ([0-9a-f]{{64}}).*\n")

MISSING, SAME, OLD, EDITED, FOREIGN = "missing", "installed", "outdated", "edited", "foreign"
MASKED = "masked"  # a link to nothing, by which its owner forbids a unit: systemctl mask


class Marked(NamedTuple):
    """A file as it should be. `text` holds the mark."""

    path: str
    text: str

    def state(self) -> str:
        """`installed`, `outdated` (ours, of another version or place), `edited`, `foreign`, `masked` or `missing`."""
        if os.path.realpath(self.path) == os.devnull:
            return MASKED
        data = read(self.path)
        if data is None:
            return MISSING
        if data == self.text.encode():
            return SAME
        text = data.decode("utf-8", "replace")
        mark = _LINE.search(text)
        if mark is None:
            return FOREIGN
        return OLD if mark[1] == _digest(text[: mark.start()] + text[mark.end() :]) else EDITED

    def refuse_if_masked(self) -> None:
        """Raises `NotChanged` if the unit is forbidden: what is meant so is not undone, not even by force."""
        if self.state() == MASKED:
            raise NotChanged(
                f"{one_line(self.path)} is masked; it was left as it is", f"{mend(self.path, MASKED)}, then repeat"
            )

    def refuse_if_edited(self, verb: str) -> None:
        """Raises `NotChanged` if somebody else wrote the file, or wrote into it."""
        state = self.state()
        if state in (EDITED, FOREIGN):
            what = "was edited since it was written" if state == EDITED else "was not written by agent-mesh"
            raise NotChanged(
                f"{one_line(self.path)} {what}; it was left as it is",
                f"{mend(self.path, state, verb)} does it, and keeps a copy beside it",
            )

    def refuse_if_fixed(self) -> None:
        """Raises `NotChanged` if the file cannot be removed."""
        if not os.access(os.path.dirname(self.path), os.W_OK):
            raise self._fixed("its folder is not writable")

    def _fixed(self, why: str) -> NotChanged:
        return NotChanged(
            f"cannot remove {one_line(self.path)}: {why}; it was left as it is",
            f"make its folder writable: {os.path.dirname(self.path)}",
        )

    def put(self) -> str | None:
        """Write it if it is not so already. The path of the copy of what was there before, if it was not ours."""
        state = self.state()
        if state == SAME:
            return None
        before = read(self.path)
        copy = back_up(self.path, before) if before is not None and state in (EDITED, FOREIGN) else None
        write(self.path, self.text.encode(), before, private=False)
        return copy

    def remove(self) -> str | None:
        """The path of the copy, as in `put`. Raises `NotChanged`."""
        state = self.state()
        before = read(self.path)
        if before is None:
            return None
        copy = back_up(self.path, before) if state in (EDITED, FOREIGN) else None
        try:
            os.unlink(self.path)
        except OSError as error:  # a file may be immutable in a folder that is not
            raise self._fixed(error.strerror or str(error)) from None
        return copy


def mend(path: str, state: str, verb: str = "install") -> str:
    """The command that carries out the action on a file in that state."""
    if state == MASKED:
        return f"systemctl --user unmask {os.path.basename(path)}"
    return f"meshctl service {verb}{' --force' if state in (EDITED, FOREIGN) else ''}"


def marked(path: str, text: str, after: str = "", before_mark: str = "# ", after_mark: str = "") -> Marked:
    """The file with its mark behind `after`, the beginning of the text that must stay the first line."""
    assert text.startswith(after)
    mark = f"{before_mark}{_WORDS}sha256 {_digest(text)}{after_mark}\n"
    return Marked(path, after + mark + text[len(after) :])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
