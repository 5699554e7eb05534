"""What a model reads of its peers: a notice, and elements that no word of a peer opens, closes, or stands beside."""

from __future__ import annotations

import html
import re
from typing import NamedTuple

from meshd.mcp.marking import NOTICE

_VALUE = r"(?:[^<>&\"\n]|&(?:amp|lt|gt|quot);)*"
_ATTRIBUTES = rf"((?: [a-z]+=\"{_VALUE}\")*)"
_ELEMENT = re.compile(
    rf"<(?P<name>peer-message|error){_ATTRIBUTES}>(?P<text>(?:[^<>&]|&(?:amp|lt|gt);)*)</(?P=name)>"
    rf"|<(?P<empty>agent){_ATTRIBUTES} />"
)
_ATTRIBUTE = re.compile(rf' ([a-z]+)="({_VALUE})"')
# Controls, separators, bidi controls, halves of characters: what could look like something else, or break a line.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_BEFORE = re.compile(r"LOST \d+ messages, gone from the store before they were read")
_AFTER = re.compile(r"\d+ more: call mesh_inbox again|\d+ more are not shown")


class Element(NamedTuple):
    """One element: its attributes and its text, as they were before they were escaped."""

    name: str
    facts: dict[str, str]
    text: str


def elements(text: str) -> list[Element]:
    """The elements of a result's text, which is nothing but the notice and them. Fails at anything else."""
    assert not _CONTROL.search(text), repr(text)
    lines = text.split("\n")
    if _BEFORE.fullmatch(lines[0]):
        lines = lines[1:]
    assert lines[0] == NOTICE, repr(text)
    rest, found = "\n".join(lines[1:]), []
    while rest and not _AFTER.fullmatch(rest):
        match = _ELEMENT.match(rest)
        assert match, f"not inside an element: {rest!r} of {text!r}"
        attributes = _ATTRIBUTE.findall(match[2] or match[5] or "")
        assert len(dict(attributes)) == len(attributes), match[0]
        facts = {key: html.unescape(value) for key, value in attributes}
        found.append(Element(match["name"] or match["empty"], facts, html.unescape(match["text"] or "")))
        rest = rest[match.end() :]
        assert not rest or rest[0] == "\n", repr(rest)
        rest = rest[1:]
    return found
