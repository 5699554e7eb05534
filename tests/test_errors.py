"""Every kind of error that can reach a user stands on one page: the tree on top of meshd/errors.py."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import meshctl
import meshd
from meshd import errors
from meshd.errors import MeshError

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^ {4}(?P<branches>[│├└─ ]*)(?P<name>\w+) +(?P<kind>[a-z_]+) +(?P<exit>\d+)(?: .*)?$")
BRANCH = 3  # characters of the drawing for each generation


class Row(NamedTuple):
    """One error of the tree. The root has no parent, and its kind is that of `Unexpected`, which stands for it."""

    name: str
    parent: str
    kind: str
    exit: int


def tree() -> list[Row]:
    """What the page says."""
    rows: list[Row] = [Row("MeshError", "", "internal", 1)]
    line_of_descent = ["MeshError"]
    for found in filter(None, map(ROW.match, (errors.__doc__ or "").splitlines())):
        generation = len(found["branches"]) // BRANCH
        if generation:
            del line_of_descent[generation:]
            rows.append(Row(found["name"], line_of_descent[-1], found["kind"], int(found["exit"])))
            line_of_descent.append(found["name"])
    return rows


def classes(root: type[MeshError] = MeshError) -> Iterator[type[MeshError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith(("meshd.", "meshctl.")):
            yield from classes(child)


@pytest.fixture(scope="module")
def all_errors() -> list[type[MeshError]]:
    """All error classes of all modules."""
    for package in (meshd, meshctl):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    return list(dict.fromkeys(classes()))


def test_the_page_shows_the_classes_of_its_module(all_errors: list[type[MeshError]]) -> None:
    """Each with its parent, its kind and its exit code; and of other rooms each that has a kind of its own."""
    shown = {
        Row(e.__name__, "" if e is MeshError else e.__bases__[0].__name__, e.kind, e.exit_code)
        for e in all_errors
        if e.__module__ == errors.__name__ or "kind" in vars(e)
    }
    assert shown == set(tree())


def test_whatever_is_raised_elsewhere_is_of_a_kind_on_the_page(all_errors: list[type[MeshError]]) -> None:
    """Also its exit code: programs match on both."""
    known = {(row.kind, row.exit) for row in tree()}
    assert [e for e in all_errors if (e.kind, e.exit_code) not in known] == []


def test_no_two_errors_have_one_name(all_errors: list[type[MeshError]]) -> None:
    names = [e.__name__ for e in all_errors]
    assert sorted(names) == sorted(set(names))


KINDS_OF_MAIL = {"message", "broadcast", "group", "reping", "escalation", "request", "reply", "ack", "direct"}


def kinds_in(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each kind that is written out: compared with, or put into a dict under that name."""
    for node in ast.walk(ast.parse(path.read_text())):
        pairs: list[tuple[ast.expr | None, ast.expr]] = []
        if isinstance(node, ast.Dict):
            pairs = [
                (key, value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "kind"
            ]
        elif isinstance(node, ast.Compare) and _is_kind(node.left):
            pairs = [(None, value) for value in node.comparators]
        for _, value in pairs:
            for leaf in ast.walk(value):
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                    yield leaf.lineno, leaf.value


def _is_kind(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in ("kind", "daemon_kind")
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value == "kind"


def test_a_kind_that_is_written_out_is_on_the_page() -> None:
    """One that is compared with and does not exist is never met; one that is answered is met by programs."""
    known = {row.kind for row in tree()} | KINDS_OF_MAIL
    unknown = [
        f"{path.relative_to(ROOT)}:{line}: {kind}"
        for folder in ("meshd", "meshctl")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, kind in kinds_in(path)
        if kind not in known
    ]
    assert unknown == []


def test_hints_for_models_are_for_kinds_on_the_page() -> None:
    from meshd.mcp.session import _HINTS

    assert set(_HINTS) <= {row.kind for row in tree()}
