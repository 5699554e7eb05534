"""Commands as the README gives them, so that it cannot promise what is not tried."""

from __future__ import annotations

import re

from tests.packaging.building import ROOT


def command(wanted: str) -> str:
    """The command, which must be there for the user to paste: in a block of code, or in a line's backquotes."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    assert wanted in [*lines, *re.findall(r"`([^`\n]+)`", text)], f"the README does not say: {wanted}"
    return wanted
