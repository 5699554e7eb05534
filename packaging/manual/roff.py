"""A manual page in the man(7) macros, written for groff and mandoc alike: ASCII, with every special escaped."""

from __future__ import annotations

import re
import textwrap

_ESCAPES = {
    "\\": "\\e",
    "-": "\\-",
    "'": "\\(aq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
    "…": "...",
}
# In prose: `literal` as in a terminal, and *placeholder*.
_MARKED = re.compile(r"`([^`]+)`|\*([^*\s][^*]*)\*")


def escape(text: str) -> str:
    """The text as it is. Raises `ValueError` for what is neither ASCII nor known here."""
    escaped = "".join(_ESCAPES.get(character, character) for character in text)
    if not escaped.isascii():
        raise ValueError(f"no escape is known for a character of {text!r}")
    return escaped


def bold(text: str) -> str:
    return f"\\fB{escape(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{escape(text)}\\fR"


def marked(text: str) -> str:
    """Prose: `literal` becomes bold, *placeholder* italic."""
    parts, end = [], 0
    for found in _MARKED.finditer(text):
        parts += [escape(text[end : found.start()]), bold(found[1]) if found[1] else italic(found[2])]
        end = found.end()
    return "".join([*parts, escape(text[end:])])


class Page:
    """A page that grows. Texts are prose as `marked` takes it, but where it says that they are roff already."""

    def __init__(self, name: str, section: int, what: str, version: str) -> None:
        self.name = name
        self.section = section
        title = escape(name.upper())
        # No date: the same sources make the same page, and the version tells more.
        self._lines = [f'.TH "{title}" {section} "" "agent\\-mesh {version}" "agent\\-mesh"', ".nh", ".ad l"]
        self.heading("NAME")
        self._lines.append(f"{escape(name)} \\- {escape(what)}")

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def heading(self, title: str) -> None:
        self._lines.append(f'.SH "{escape(title)}"')

    def subheading(self, title: str) -> None:
        self._lines.append(f'.SS "{escape(title)}"')

    def paragraph(self, text: str) -> None:
        self._break()
        self._lines += _wrapped(marked(text))

    def synopsis(self, roff: str) -> None:
        """One way to call it; roff. Further lines are indented."""
        self._lines += [".HP 4", _line(roff)]

    def item(self, tag: str, text: str, *, width: int | None = None) -> None:
        """A term, which is roff, and what is said of it."""
        self._lines += [".TP" if width is None else f".TP {width}", _line(tag), *_wrapped(marked(text))]

    def example(self, *lines: str) -> None:
        """Lines as they stand in a terminal or a file."""
        self._break()
        self._lines += [".RS 4", ".nf", *(_line(escape(line)) for line in lines), ".fi", ".RE"]

    def see_also(self, *pages: tuple[str, int]) -> None:
        self.heading("SEE ALSO")
        self._lines.append(",\n".join(f"\\fB{escape(name)}\\fR({section})" for name, section in pages))

    def _break(self) -> None:
        """A new paragraph, but behind a heading, which begins one."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")


def _wrapped(text: str) -> list[str]:
    """Filled text in lines of the source; where they break means nothing."""
    return [_line(line) for line in textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)]


def _line(text: str) -> str:
    """A text line that no macro is read from."""
    return f"\\&{text}" if text.startswith((".", "'")) else text
