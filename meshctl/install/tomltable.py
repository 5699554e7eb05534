"""Edits of one table in a TOML file: every other line keeps its bytes, comments included.

tomlkit changes the text; the standard library reads what came of it: if that says anything but what it should, the
edit is refused. tomlkit is given one table at a time: a whole document with tables of one group apart from each other
it may write in another order, and a comment between two tables it takes away with the first.
"""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import tomlkit
from tomlkit.items import InlineTable, Table

from meshctl.install.jsontext import Unparsable


class TomlTable:
    """The table `group.name`, however it is written, in the text of a TOML document. `text` follows each edit.

    Raises `Unparsable`.
    """

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
        """Put the table, which is not there yet, at the end of the file; or into its group, where that is inline."""
        newline = self._newline
        table = newline.join([f"[{_key(self._group)}.{_key(self._name)}]", *map(_line, values.items())])
        if not self.text.strip():
            text = self.text + table + newline
        elif self.text.endswith("\n"):
            text = self.text + newline + table + newline
        else:
            # A last line without an end stays without one, so that taking the table away restores the file.
            text = self.text + newline * 2 + table
        try:
            self._accept(text, values)
        except Unparsable:
            pieces = _pieces(self.text)
            group = next((k for k, piece in enumerate(pieces) if self._group in _parsed(piece)), None)
            if group is None:
                raise
            document = tomlkit.parse(pieces[group])
            document[self._group][self._name] = self._inline(values)
            pieces[group] = document.as_string()
            self._accept("".join(pieces), values)

    def set(self, values: dict[str, Any]) -> None:
        """Give keys of the table new values, each where it stands; a missing one before the others."""
        assert self.values is not None
        pieces = _pieces(self.text)
        for key, value in values.items():
            places = self._places(pieces)
            # A table may be taken up again further down, for more of it or for the tables in it.
            known = [k for k, table in places.items() if key in table]
            plain = [k for k, table in places.items() if any(not isinstance(v, dict) for v in table.values())]
            at = (known or plain or list(places))[0]
            document = tomlkit.parse(pieces[at])
            table: Any = document[self._group][self._name]
            if known or not isinstance(table, Table):
                table[key] = value
            else:
                item = tomlkit.item(value)
                item.trivia.trail = self._newline
                table.value.body.insert(0, (tomlkit.key(key), item))
            pieces[at] = document.as_string()
        self._accept("".join(pieces), self.values | values)

    def remove(self) -> None:
        """Take the table away, with the tables in it and an empty line before it."""
        pieces = _pieces(self.text)
        for at in self._places(pieces):
            document = tomlkit.parse(pieces[at])
            del document[self._group][self._name]
            left = document.as_string()
            if not left.strip():
                left = _tail(pieces[at])
                pieces[:at] = [_without_empty_line("".join(pieces[:at])), *[""] * (at - 1)] if at else []
            pieces[at] = left
        text = "".join(pieces)
        if not pieces[-1] and not self.text.endswith("\n"):
            text = text.rstrip("\r\n")
        self._accept(text, None)

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _inline(self, values: dict[str, Any]) -> InlineTable:
        table = tomlkit.inline_table()
        table.update(values)
        return table

    def _places(self, pieces: list[str]) -> dict[int, dict[str, Any]]:
        """What each of the pieces says of the table, by the piece's number, where one says anything."""
        found = {k: _parsed(piece).get(self._group, {}) for k, piece in enumerate(pieces)}
        return {k: tables[self._name] for k, tables in found.items() if self._name in tables}

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


def _key(key: str) -> str:
    return tomlkit.key(key).as_string()


def _line(item: tuple[str, Any]) -> str:
    return f"{_key(item[0])} = {tomlkit.item(item[1]).as_string()}"


def _pieces(text: str) -> list[str]:
    """The text, cut before each header of a table: so each piece is a document of one table at most.

    What only looks like a header, in a text or an array of many lines, leaves an open end before it.
    """
    pieces, piece = [], ""
    for line in text.splitlines(keepends=True):
        if piece and line.lstrip(" \t").startswith("[") and _is_whole(piece):
            pieces.append(piece)
            piece = ""
        piece += line
    return [*pieces, piece]


def _is_whole(piece: str) -> bool:
    try:
        tomllib.loads(piece)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _tail(piece: str) -> str:
    """The comments and empty lines at its end: they belong to what comes next."""
    lines = piece.splitlines(keepends=True)
    at = len(lines)
    while at and (not lines[at - 1].strip() or lines[at - 1].lstrip().startswith("#")):
        at -= 1
    return "".join(lines[at:])


def _without_empty_line(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[:-1] if lines and not lines[-1].strip() else lines)


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unparsable(str(error)) from None
    except RecursionError:
        raise Unparsable("it is nested too deeply") from None
