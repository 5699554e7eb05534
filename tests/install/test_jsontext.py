"""Edits in the text of a JSON file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.install.jsontext import JsonText, Unparsable

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "mcp", "//", '"', "é"]), inner)
    ),
    max_leaves=12,
)
# What is set is not empty, and there was nothing at its path: so that taking it away must restore the text.
documents = st.dictionaries(st.sampled_from(["x", "y", "mcp", "hooks", "{"]), values, min_size=1)
styles = st.sampled_from([None, 0, 1, 2, 4, "\t"])


@given(
    documents, styles, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\n", "\n\n", " "]), values, st.booleans()
)
def test_what_was_set_can_be_removed_without_a_trace(
    document: dict[str, Any], indent: Any, newline: str, end: str, value: Any, ascii_only: bool
) -> None:
    """Whatever the document and its style: the other values stay, and after the removal every byte is as before."""
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only).replace("\n", newline) + end
    value = {"value": value}
    edited = JsonText(text)
    path: tuple[str, ...] = ("new",)
    if isinstance(document.get("mcp"), dict):
        path = ("mcp", "new") if document["mcp"] else path
    edited.set(*path, value=value)
    expected = json.loads(text)
    (expected["mcp"] if len(path) == 2 else expected)["new"] = value
    assert json.loads(edited.text) == expected == edited.data
    assert (newline in edited.text) == (newline in text)
    edited.remove(*path)
    assert edited.text == text


@given(st.lists(values, min_size=1, max_size=5), styles, st.data())
def test_any_element_can_be_removed(elements: list[Any], indent: Any, data: st.DataObject) -> None:
    """The rest stays, in order; the list goes with its last element."""
    edited = JsonText(json.dumps({"a": 1, "list": elements}, indent=indent))
    while elements:
        k = data.draw(st.integers(0, len(elements) - 1))
        if elements[k] is None:
            return  # nothing is there, for an edit
        edited.remove("list", k)
        del elements[k]
        assert json.loads(edited.text) == ({"a": 1, "list": elements} if elements else {"a": 1})


def test_the_style_of_the_file_is_kept() -> None:
    edited = JsonText('{\n    "b": 1,\n    "a": {"x": []}\n}\n')
    edited.set("a", "y", value={"k": [1]})
    edited.append("c", "d", value="e")
    edited.set("b", value=2)
    assert edited.text == (
        '{\n    "b": 2,\n    "a": {"x": [], "y": {"k": [1]}},\n    "c": {\n        "d": [\n            "e"\n'
        "        ]\n    }\n}\n"
    )
    assert edited.said == ['+ a.y: {"k": [1]}', '+ c.d: ["e"]', "- b: 1", "+ b: 2"]


def test_comments_stay_where_they_are() -> None:
    text = (
        '{\n  // mine\n  "url": "http://x", /* of a\n  thing */\n  "servers": { // these\n'
        '    "other": {} // last\n  } // end\n}\n'
    )
    edited = JsonText(text, comments=True)
    edited.set("servers", "ours", value={"a": 1})
    assert edited.text == text.replace(
        '"other": {} // last\n', '"other": {}, // last\n    "ours": {\n      "a": 1\n    }\n'
    )
    edited.remove("servers", "ours")
    assert edited.text == text
    edited.remove("url")
    assert JsonText(edited.text, comments=True).data == {"servers": {"other": {}}}
    assert edited.text.count("//") == 4
    assert "/* of a\n  thing */" in edited.text


@pytest.mark.parametrize(
    "text", ['{"a": 1 // {\n, "b": 2}', '{// "\n"a": 1}', '{"a": 1, // [\n"b": 2 /* } */ }', '{\n// {\n"a": 1, "b": 2}']
)
def test_a_removal_never_joins_a_value_to_a_comment(text: str) -> None:
    """It is done rightly, or refused; the text on which it was refused is as it was."""
    edited = JsonText(text, comments=True)
    wanted = {key: value for key, value in edited.data.items() if key != "a"}
    try:
        edited.remove("a")
    except Unparsable:
        return
    assert JsonText(edited.text, comments=True).data == wanted


@pytest.mark.parametrize("text", ["", " \n", "\ufeff{}", "{}", "{ }\n"])
def test_an_empty_document_gets_its_first_key(text: str) -> None:
    edited = JsonText(text)
    edited.set("a", "b", value=1)
    assert json.loads(edited.text.removeprefix("\ufeff")) == {"a": {"b": 1}}
    assert edited.text.startswith("\ufeff") == text.startswith("\ufeff")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": ', "line 1, column 7: Expecting value"),
        ('{"a": 1,}', "line 1, column "),
        ("{} {}", "Extra data"),
        ("{\n  // c\n}", "line 2, column 3"),
        ("[]", "the top level is not an object"),
        ("null", "the top level is not an object"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
    ],
    ids=range(7),
)
def test_what_is_no_json_is_refused(text: str, why: str) -> None:
    with pytest.raises(Unparsable, match=why):
        JsonText(text)


@pytest.mark.parametrize("there", ["[]", '"x"', "1", "true", "null", '[{"new": 1}]'])
def test_another_structure_is_refused(there: str) -> None:
    """A path through something that is no object, or to the end of something that is no list."""
    edited = JsonText(f'{{"a": {there}}}')
    with pytest.raises(Unparsable, match="a is not an object"):
        edited.set("a", "new", value=1)
    with pytest.raises(Unparsable, match="a is not an object"):
        edited.remove("a", "new")
    if not there.startswith("[") and there != "null":
        with pytest.raises(Unparsable, match="a is not a list"):
            edited.append("a", value=1)
    assert edited.text == f'{{"a": {there}}}'


def test_of_a_key_that_is_there_twice_the_last_one_is_edited() -> None:
    """That is the one that counts. A removal would bring the first one back: it is refused."""
    edited = JsonText('{"a": {"b": 1}, "a": {"c": 2}}')
    edited.set("a", "c", value=3)
    assert edited.text == '{"a": {"b": 1}, "a": {"c": 3}}'
    with pytest.raises(Unparsable, match="does not understand"):
        edited.remove("a")
