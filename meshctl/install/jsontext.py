"""Edits in the text of a JSON file: what is not edited keeps its bytes, its order, its indentation and its comments.

Loading and dumping would be shorter, and would rewrite a file that is its owner's: a diff of their dotfiles would
show every line. What an edit here has added, `remove` takes away without a trace.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any, NamedTuple

Path = tuple[str | int, ...]

_BLANKS = " \t\r\n"
# A string, or a comment: a comment's mark within a string is none.
_STRING_OR_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_DECODER = json.JSONDecoder()


class Unparsable(ValueError):
    """The text is no JSON, or not built as the edit needs it. Nothing was edited."""


class _Member(NamedTuple):
    """Where an object's member or an array's element stands. `begin` is that of its key, if it has one."""

    key: str | int
    begin: int
    value: int
    end: int


class JsonText:
    """The text of a JSON document, whose top level is an object; an empty text counts as one.

    `text` and `data` follow each edit; `said` has a line for each, as a diff would say it. Raises `Unparsable`.
    """

    def __init__(self, text: str, *, comments: bool = False) -> None:
        self.text = text
        self.said: list[str] = []
        self._comments = comments
        if not text.strip():
            self.text = "{}" + self._newline
        self.data = self._parsed()
        if not isinstance(self.data, dict):
            raise Unparsable("the top level is not an object")

    def get(self, *path: str | int) -> Any:
        """The value at the path, None if nothing is there. Raises `Unparsable` if the path leads through a scalar."""
        found: Any = self.data
        for k, key in enumerate(path):
            kind: Any = dict if isinstance(key, str) else list
            if not isinstance(found, kind):
                raise Unparsable(f"{spell(path[:k])} is not {'an object' if kind is dict else 'a list'}")
            try:
                found = found[key]
            except LookupError:
                return None
        return found

    def keys(self, *path: str | int) -> list[str]:
        """The keys of the object at the path, none if nothing is there."""
        found = self.get(*path)
        if found is not None and not isinstance(found, dict):
            raise Unparsable(f"{spell(path)} is not an object")
        return list(found or {})

    def items(self, *path: str | int) -> list[Any]:
        """The list at the path, empty if nothing is there."""
        found = self.get(*path)
        if found is not None and not isinstance(found, list):
            raise Unparsable(f"{spell(path)} is not a list")
        return found or []

    def set(self, *path: str | int, value: Any) -> None:
        """Put the value there, replacing what is there; objects on the way are made."""
        old = self.get(*path)
        expected = copy.deepcopy(self.data)
        inner = expected
        for key in path[:-1]:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner[key]
        inner[path[-1]] = value
        if old is not None:
            member = self._member(path)
            dumped = self._dump(value, self._indent_at(member.begin))
            self.text = self.text[: member.value] + dumped + self.text[member.end :]
            self.said.append(f"- {spell(path)}: {json.dumps(old)}")
        else:
            depth = len(path) - 1
            while depth and self.get(*path[:depth]) is None:
                depth -= 1
            made = value
            for key in reversed(path[depth + 1 :]):
                made = {key: made}
            self._insert(path[:depth], path[depth], made)
        self._check(expected)
        self.said.append(f"+ {spell(path)}: {json.dumps(value)}")

    def append(self, *path: str | int, value: Any) -> None:
        """Put the value at the end of the list there, which is made if it is missing."""
        there = self.items(*path)
        if self.get(*path) is None:
            self.set(*path, value=[value])
            return
        expected = copy.deepcopy(self.data)
        _at(expected, path).append(value)
        self._insert(path, None, value)
        self._check(expected)
        self.said.append(f"+ {spell((*path, len(there)))}: {json.dumps(value)}")

    def remove(self, *path: str | int) -> None:
        """Take away what is there, and each object or list around it that is empty then. Nothing there is fine."""
        old = self.get(*path)
        if old is None:
            return
        self.said.append(f"- {spell(path)}: {json.dumps(old)}")
        while True:
            self._cut(path)
            path = path[:-1]
            if not path or self.get(*path):
                return

    # --- where things are ---

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _parsed(self) -> Any:
        """Parse the text, and keep it with its comments blanked: as long as the text, so that positions are shared."""
        bare = self.text
        if self._comments:
            bare = _STRING_OR_COMMENT.sub(lambda found: _blanked(found[0]), bare)
        self._bare = " " + bare[1:] if bare.startswith("\ufeff") else bare
        try:
            return json.loads(self._bare)
        except json.JSONDecodeError as error:
            raise Unparsable(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
        except RecursionError:
            raise Unparsable("it is nested too deeply") from None

    def _skip(self, at: int) -> int:
        while self._bare[at] in _BLANKS:
            at += 1
        return at

    def _members(self, start: int) -> tuple[list[_Member], int]:
        """The members of the object or list that begins here, and where it is closed."""
        bare, members = self._bare, list[_Member]()
        is_object = bare[start] == "{"
        at = self._skip(start + 1)
        while bare[at] not in "}]":
            begin, key = at, len(members)  # type: int, str | int
            if is_object:
                key, at = _DECODER.raw_decode(bare, at)
                at = self._skip(self._skip(at) + 1)
            _, end = _DECODER.raw_decode(bare, at)
            members.append(_Member(key, begin, at, end))
            at = self._skip(end)
            if bare[at] == ",":
                at = self._skip(at + 1)
        return members, at

    def _member(self, path: Path) -> _Member:
        """Where the value at this path stands, which is there. Of a key that is there twice, the last one counts."""
        found = _Member("", 0, self._skip(0), len(self._bare))
        for key in path:
            members, _ = self._members(found.value)
            found = next(member for member in reversed(members) if member.key == key)
        return found

    def _indent_at(self, at: int) -> str:
        """The blanks at the beginning of the line of this position."""
        line = self.text[self.text.rfind("\n", 0, at) + 1 : at]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def _unit(self) -> str:
        found = re.search(r'\n([ \t]+)"', self.text)
        return found[1] if found else "  "

    def _dump(self, value: Any, indent: str | None) -> str:
        """The value as text; over several lines, unless `indent` is None or it is short and flat."""
        flat = json.dumps(value, ensure_ascii=False)
        if indent is None or flat in ("{}", "[]"):
            return flat
        lines = json.dumps(value, ensure_ascii=False, indent=self._unit()).split("\n")
        return (self._newline + indent).join(lines)

    # --- edits of the text ---

    def _insert(self, path: Path, key: str | int | None, value: Any) -> None:
        """Make a last member of the object or list at the path."""
        start = self._member(path).value
        members, close = self._members(start)
        name = "" if key is None else f"{json.dumps(key, ensure_ascii=False)}: "
        text = self.text
        if not members:
            inner = text[start + 1 : close].rstrip(_BLANKS)  # a comment, at most
            base = self._indent_at(start)
            if path and "\n" not in text.strip():
                self.text = f"{text[: start + 1]}{inner}{name}{self._dump(value, None)}{text[close:]}"
                return
            indent = base + self._unit()
            line = f"{self._newline}{indent}{name}{self._dump(value, indent)}{self._newline}{base}"
            self.text = f"{text[: start + 1]}{inner}{line}{text[close:]}"
            return
        last = members[-1]
        before = text[: last.begin]
        gap = before[len(before.rstrip(_BLANKS)) :]  # what stands before the last one stands before the new one
        comment = text[last.end : close].rstrip(_BLANKS)
        if "\n" not in gap and "//" in comment:
            gap = self._newline + self._indent_at(close) + self._unit()
        elif not gap and len(members) == 1:
            gap = " "
        deeper = gap.rpartition("\n")[2] if "\n" in gap else None
        tail = text[last.end + len(comment) :]
        if "\n" in gap and "\n" not in text[last.end + len(comment) : close]:
            tail = f"{self._newline}{self._indent_at(start)}{text[close:]}"
        self.text = f"{text[: last.end]},{comment}{gap}{name}{self._dump(value, deeper)}{tail}"

    def _cut(self, path: Path) -> None:
        """Take a member out of its object or list, and the comma that goes with it."""
        expected = copy.deepcopy(self.data)
        del _at(expected, path[:-1])[path[-1]]
        members, close = self._members(self._member(path[:-1]).value)
        k = max(k for k, member in enumerate(members) if member.key == path[-1])
        member, text = members[k], self.text
        head = text[: member.begin].rstrip(_BLANKS)
        after_comment = len(self._bare[: member.begin].rstrip(_BLANKS)) < len(head)
        if k + 1 < len(members):
            comma = self._bare.index(",", member.end)
            rest = text[member.end : comma] + text[comma + 1 :]
            if after_comment and not rest.startswith(("\n", "\r\n")):
                head = text[: member.begin]  # the rest may not get into the line of a comment
            self.text = head + rest
        elif k:
            comma = self._bare.index(",", members[k - 1].end)
            self.text = text[:comma] + head[comma + 1 :] + text[member.end :]
        else:
            tail = text[member.end : close]
            self.text = head + (tail if after_comment or tail.strip() else "") + text[close:]
        self._check(expected)

    def _check(self, expected: Any) -> None:
        """Whatever the edit did to the text, nothing else may mean anything else now."""
        try:
            found = self._parsed()
        except Unparsable:
            found = None
        if found != expected:
            raise Unparsable("it is written in a way that this edit does not understand")
        self.data = found


def _at(data: Any, path: Path) -> Any:
    for key in path:
        data = data[key]
    return data


def spell(path: Path) -> str:
    """A path as it is said to a person: `hooks.Stop[0]`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".") or "the top level"


def _blanked(found: str) -> str:
    return found if found.startswith('"') else re.sub(r"[^\n\r]", " ", found)
