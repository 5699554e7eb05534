"""Edits of one table in the text of a TOML file."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.install.jsontext import Unparsable
from meshctl.install.tomltable import TomlTable

VALUES = {"command": '/a b/"c"/\\d/é', "args": ["mcp"]}
PIECES = [
    "# a comment",
    "",
    "key = 1 # [mcp_servers.mesh]",
    "[table]",
    'text = """\n[looks.like.a.header]\n"""',
    "[[tables]]",
    "x = [\n  [1],\n  [2],\n]",
    "[mcp_servers.other] # mine",
    'command = "mesh"',
    "[mcp_servers.mesh-other]",
    "[mcp_servers.other.env]",
]


def table(text: str) -> TomlTable:
    return TomlTable(text, "mcp_servers", "mesh")


@given(
    st.lists(st.sampled_from(PIECES), max_size=6), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "end", "\n"])
)
def test_what_was_added_can_be_removed_without_a_trace(pieces: list[str], newline: str, end: str) -> None:
    """Whatever stands around it: the other tables mean the same, and after the removal every byte is as before."""
    text = "\n".join(pieces).replace("\n", newline) + {"": "", "end": newline, "\n": newline * 3}[end]
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(Unparsable):
            table(text)
        return
    edited = table(text)
    edited.add(VALUES)
    after = tomllib.loads(edited.text)
    assert after["mcp_servers"].pop("mesh") == VALUES
    assert after == before | {"mcp_servers": before.get("mcp_servers", {})}
    edited.remove()
    assert edited.text == text if text.strip() else not edited.text.strip()


def test_an_edit_keeps_what_the_owner_wrote() -> None:
    text = (
        '[mcp_servers.other] # keep\r\ncommand = "x"\r\n\r\n[mcp_servers.mesh]\r\n# why\r\ncommand = "/old" # c\r\n'
        "startup_timeout_sec = 20\r\n[mcp_servers.mesh.env]\r\nA = 'b'\r\n# of the next\r\n[tools]\r\n"
    )
    edited = table(text)
    assert edited.values == {"command": "/old", "startup_timeout_sec": 20, "env": {"A": "b"}}
    edited.set({"command": "/new", "args": ["mcp"]})
    assert edited.text == text.replace('command = "/old" # c', 'command = "/new" # c').replace(
        "[mcp_servers.mesh]\r\n", '[mcp_servers.mesh]\r\nargs = ["mcp"]\r\n'
    )
    edited.remove()
    assert edited.text == '[mcp_servers.other] # keep\r\ncommand = "x"\r\n# of the next\r\n[tools]\r\n'


@pytest.mark.parametrize(
    "header", ["[mcp_servers.mesh]", '[ mcp_servers . "mesh" ]', "  [mcp_servers.'mesh'] # c", '["mcp_servers".mesh]']
)
def test_any_spelling_of_the_header_is_known(header: str) -> None:
    edited = table(f'a = 1\n{header}\ncommand = "x"\n')
    edited.set({"command": "y"})
    assert edited.values == {"command": "y"}
    edited.remove()
    assert edited.text == "a = 1\n"


@pytest.mark.parametrize(
    ("text", "changed", "removed"),
    [
        (
            'mcp_servers = {other = {command = "o"}, mesh = {command = "x"}} # c\n',
            'mcp_servers = {other = {command = "o"}, mesh = {command = "y", args = ["mcp"]}} # c\n',
            'mcp_servers = {other = {command = "o"}} # c\n',
        ),
        (
            '[mcp_servers]\r\nmesh = {command = "x"} # c\r\nother = {}\r\n',
            '[mcp_servers]\r\nmesh = {command = "y", args = ["mcp"]} # c\r\nother = {}\r\n',
            "[mcp_servers]\r\nother = {}\r\n",
        ),
        (
            'a = 1 # c\nmcp_servers.mesh.command = "x" # d\nb = 2\n[c]\n',
            'a = 1 # c\nmcp_servers.mesh.args = ["mcp"]\nmcp_servers.mesh.command = "y" # d\nb = 2\n[c]\n',
            "a = 1 # c\nb = 2\n[c]\n",
        ),
        (
            '[mcp_servers]\nmesh.command = "x"\nother.command = "o"\n',
            '[mcp_servers]\nmesh.args = ["mcp"]\nmesh.command = "y"\nother.command = "o"\n',
            '[mcp_servers]\nother.command = "o"\n',
        ),
    ],
    ids=["inline", "inline in its group", "dotted", "dotted in its group"],
)
def test_a_table_without_a_header_of_its_own_is_edited_where_it_stands(text: str, changed: str, removed: str) -> None:
    edited = table(text)
    edited.set({"command": "y", "args": ["mcp"]})
    assert without_spaces(edited.text) == without_spaces(changed)
    edited = table(text)
    edited.remove()
    assert without_spaces(edited.text) == without_spaces(removed)


def without_spaces(text: str) -> str:
    """Between the braces of an inline table they are tomlkit's to choose."""
    return text.replace(" ", "")


def test_a_table_is_added_to_a_group_that_is_inline() -> None:
    text = 'mcp_servers = {other = {command = "x"}} # c\n[a]\n'
    edited = table(text)
    edited.add(VALUES)
    assert tomllib.loads(edited.text) == {"mcp_servers": {"other": {"command": "x"}, "mesh": VALUES}, "a": {}}
    assert edited.text.endswith("} # c\n[a]\n")
    edited.remove()
    assert edited.text == text


def test_a_table_that_is_taken_up_again_is_changed_where_its_key_is_and_removed_whole() -> None:
    text = '[mcp_servers.mesh.env]\nA = "b"\n# of the next\n[[x]]\n[mcp_servers.mesh]\ncommand = "x"\n\n[y]\n'
    edited = table(text)
    edited.set({"command": "y", "args": ["mcp"]})
    assert edited.text == text.replace('command = "x"', 'args = ["mcp"]\ncommand = "y"')
    edited.remove()
    assert edited.text == "# of the next\n[[x]]\n\n[y]\n"


@pytest.mark.parametrize(
    "text", ["model = [", "mcp_servers = []", "[mcp_servers]\nmesh = 1", "a = 1\na = 2", "\ufeffa = 1"]
)
def test_what_is_no_toml_or_not_built_so_is_refused(text: str) -> None:
    with pytest.raises(Unparsable):
        table(text)
