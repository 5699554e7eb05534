"""Fixtures: the scripted model, and a user of Claude Code who talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.claude import Claude
from tests.clients.messages_api import MessagesApi


@pytest.fixture
def api() -> Iterator[MessagesApi]:
    """A model that says "ok" until the test gives it a script."""
    with MessagesApi() as made:
        yield made


@pytest.fixture
def claude(tmp_path: Path, api: MessagesApi) -> Claude:
    """A user with nothing of ours."""
    return Claude(tmp_path / "user", tmp_path / "project", api)
