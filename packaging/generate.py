#!/usr/bin/env python3
"""Writes what is installed beside the programs: manual pages, and completions for three shells.

    packaging/generate.py FOLDER

FOLDER becomes what `share` is below a prefix. Everything is made from the command table and the settings, so it is
made anew for every package, and never kept. Needs msgspec, as the table does.

    packaging/generate.py --kept

writes what is kept, since the programs read it where they are: meshctl/help. To be run after each change of the
command table; a test says when it was forgotten.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Not left to Python, which adds nothing where PYTHONSAFEPATH is set: pipx sets it.
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from manual import pages

from meshctl import completion
from meshctl.commands.direct import TEXTS
from meshd.control import help as helps


def files() -> dict[str, str]:
    """Path below `share` -> text."""
    made = {
        # bash and fish look for a file that is named like the command.
        "bash-completion/completions/meshctl": completion.script("bash"),
        "bash-completion/completions/agent-mesh": completion.script("bash"),
        "zsh/site-functions/_meshctl": completion.script("zsh"),
        "fish/vendor_completions.d/meshctl.fish": completion.script("fish"),
        "fish/vendor_completions.d/agent-mesh.fish": "complete -c agent-mesh -w meshctl\n",
        "man/man1/agent-mesh.1": ".so man1/meshctl.1\n",
    }
    for page in (pages.meshctl(), pages.meshd(), pages.configuration()):
        made[f"man/man{page.section}/{page.name}.{page.section}"] = page.text
    return made


def main(folder: Path) -> None:
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def kept(folder: Path) -> None:
    """The help of each command, and of none that is not there any more."""
    folder.mkdir(exist_ok=True)
    texts = {f"{name}.txt": text for name, text in helps.texts().items()}
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER | --kept")
    if sys.argv[1] == "--kept":
        kept(Path(TEXTS))
    else:
        main(Path(sys.argv[1]))
