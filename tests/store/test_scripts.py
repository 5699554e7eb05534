"""The scripts: their parameters stand once, and each has its function."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from meshd.store import scripts
from meshd.store.scripts import script as module
from meshd.store.scripts.peeking import SIZES
from meshd.store.scripts.script import Script

FOLDER = Path(module.__file__).parent


def test_every_file_is_a_script() -> None:
    """None is forgotten when a connection gives the store its scripts; `sizes` is called by its source."""
    assert sorted(each.name for each in (*scripts.ALL, SIZES)) == sorted(path.stem for path in FOLDER.glob("*.lua"))
    assert len({each.digest for each in scripts.ALL}) == len(scripts.ALL)


@pytest.mark.parametrize("each", [*scripts.ALL, SIZES], ids=lambda each: each.name)
def test_parameters_have_names_in_the_file_and_numbers_in_the_store(each: Script[object]) -> None:
    """No key or argument is counted by hand, none before one that is used is unused, and no name is left behind."""
    lua = "\n".join(line.partition("--")[0] for line in (FOLDER / f"{each.name}.lua").read_text().splitlines())
    assert not re.search(r"(KEYS|ARGV)\[[0-9]", lua)
    source = each.source.decode()
    assert not re.search(r"\b(KEY|ARG|CONST)\.|\bREST\b", "\n".join(x.partition("--")[0] for x in source.splitlines()))
    for table in ("KEYS", "ARGV"):
        numbers = {int(number) for number in re.findall(rf"{table}\[([0-9]+)\]", source)}
        assert numbers == set(range(1, len(numbers) + 1))


def test_a_name_that_is_not_declared_fails_when_the_file_is_loaded() -> None:
    """Not in the store, at the first call."""

    class Keys(NamedTuple):
        stream: str

    class Args(NamedTuple):
        nothing: str

    with pytest.raises(KeyError, match="lease"):
        Script("renew", Keys, Args, lambda reply: reply)
