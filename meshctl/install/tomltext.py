"""Edits of one table in the text of a TOML file: every other line keeps its bytes, comments included.

The standard library reads TOML and does not write it. So lines are put in and taken out, and the result is read
again: if it says anything but what it should, the edit is refused.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from typing import Any

from meshctl.install.jsontext import Unparsable

_ANY_HEADER = re.compile(r"[ \t]*\[")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class TomlTable:
    """The table `[group.name]` in the text of a TOML document. `text` follows each edit. Raises `Unparsable`."""

    def __init__(self, text: str, group: str, name: str) -> None:
        self.text = text
        self._group = group
        self._name = name
        self._data = _parsed(text)
        tables = self._data.get(group, {})
        if not isinstance(tables, dict):
            raise Unparsable(f"{group} is not a table")
        self.values: dict[str, Any] | None = tables.get(name)
        if self.values is not None and not isinstance(self.values, dict):
            raise Unparsable(f"{group}.{name} is not a table")

    def add(self, values: dict[str, Any]) -> None:
        """Put the table, which is not there yet, at the end of the file."""
        newline, text = self._newline, self.text
        lines = [f"[{_key(self._group)}.{_key(self._name)}]", *map(_line, values.items())]
        table = newline.join(lines)
        if not text.strip():
            table += newline
        elif text.endswith("\n"):
            table = newline + table + newline
        else:
            # A last line without an end stays without one, so that taking the table away restores the file.
            table = newline * 2 + table
        self._accept(text + table, values)

    def set(self, values: dict[str, Any]) -> None:
        """Give keys of the table new values, each on the line where it stands; a missing one behind the header."""
        assert self.values is not None
        lines = self.text.splitlines(keepends=True)
        start, end = self._own_lines(lines)
        for key, value in values.items():
            known = re.compile(rf"[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*=")
            at = next((k for k in range(start + 1, end) if known.match(lines[k])), None)
            if at is None:
                lines.insert(start + 1, _line((key, value)) + self._newline)
                end += 1
            else:
                lines[at] = _line((key, value)) + (self._newline if lines[at].endswith("\n") else "")
        self._accept("".join(lines), self.values | values)

    def remove(self) -> None:
        """Take the table away, with the tables in it."""
        text = self.text
        while True:
            lines = text.splitlines(keepends=True)
            start, end = self._own_lines(lines)
            if start and not lines[start - 1].strip():
                start -= 1
            rest = lines[:start] + lines[end:]
            if rest and end == len(lines) and not text.endswith("\n"):
                rest[-1] = rest[-1].rstrip("\r\n")
            text = "".join(rest)
            if not self._headers(rest):
                break
        self._accept(text, None)

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _headers(self, lines: list[str]) -> list[int]:
        """The lines that begin this table, or a table in it."""
        group, name = (rf"[\"']?{re.escape(key)}[\"']?" for key in (self._group, self._name))
        header = re.compile(rf"[ \t]*\[[ \t]*{group}[ \t]*\.[ \t]*{name}[ \t]*[.\]]")
        return [k for k, line in enumerate(lines) if header.match(line)]

    def _own_lines(self, lines: list[str]) -> tuple[int, int]:
        """From the first such header to behind its last line; comments before the next header belong to that."""
        headers = self._headers(lines)
        if not headers:
            raise Unparsable(f"{self._group}.{self._name} is not written as a [table] of its own")
        start = headers[0]
        end = next((k for k in range(start + 1, len(lines)) if _ANY_HEADER.match(lines[k])), len(lines))
        while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
            end -= 1
        return start, end

    def _accept(self, text: str, values: dict[str, Any] | None) -> None:
        """Whatever the edit did to the text, nothing else may mean anything else now."""
        expected = copy.deepcopy(self._data)
        tables = expected.setdefault(self._group, {})
        if values is None:
            del tables[self._name]
        else:
            tables[self._name] = values
        try:
            found = _parsed(text)
        except Unparsable:
            found = {}
        if not tables and self._group not in found:
            del expected[self._group]  # it stood nowhere but in this table's header
        if found != expected:
            raise Unparsable("it is written in a way that this edit does not understand")
        self.text, self._data, self.values = text, expected, values


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unparsable(str(error)) from None
    except RecursionError:
        raise Unparsable("it is nested too deeply") from None


def _line(item: tuple[str, Any]) -> str:
    return f"{_key(item[0])} = {_value(item[1])}"


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)


def _value(value: Any) -> str:
    """A string, or a list of strings: as JSON writes them, TOML reads them."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
