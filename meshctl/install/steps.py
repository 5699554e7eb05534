"""What an installation is made of: files to edit, commands of the client to run, a folder to write or remove.

Each step says beforehand what it would do, and afterwards what it did. An edit is whole or not at all; a file
that was there keeps its mode, its owner and its being a link, and leaves a copy beside it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from meshctl.install.files import NotChanged, back_up, cannot_write, read, write
from meshctl.install.jsontext import JsonText, Unparsable
from meshd.core.text import block
from meshd.disk.files import replace

if TYPE_CHECKING:
    from meshctl.install.tomltable import TomlTable

COMMAND_TIMEOUT = 120.0  # seconds that a client's own command may take


class Report(NamedTuple):
    """What a step does, or did: `kind` is run, edit, write or remove; `what` a command line or a path."""

    kind: str
    what: str
    lines: list[str] = []
    backup: str | None = None


# Of each file that a step changed, the copy of what it was before the first of them; None if it was not there.
Kept = dict[str, str | None]


class Step(Protocol):
    def plan(self) -> Report | None:
        """What it would do; None if there is nothing to do. Raises `NotChanged` if it cannot."""

    def apply(self, kept: Kept) -> Report | None:
        """Do it. Raises `NotChanged`."""


def needed(steps: list[Step]) -> list[Step]:
    """The steps that have something to do."""
    return [step for step in steps if step.plan() is not None]


class Run(NamedTuple):
    """A command of the client's own. `changes`: the files of the user that it will rewrite."""

    argv: list[str]
    changes: list[str] = []

    def plan(self) -> Report:
        return Report("run", shlex.join(self.argv))

    def apply(self, kept: Kept) -> Report:
        said = shlex.join(self.argv)
        before = {path: read(path) for path in self.changes if path not in kept}
        copies = {path: back_up(path, data) for path, data in before.items() if data is not None}
        try:
            self._run(said)
        finally:
            for path, data in before.items():
                if read(path) != data:
                    kept[path] = copies.get(path)
                elif path in copies:
                    os.unlink(copies.pop(path))
        return Report("run", said, backup=", ".join(copies.values()) or None)

    def _run(self, said: str) -> None:
        try:
            done = subprocess.run(
                self.argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise NotChanged(f"{said}: no end after {COMMAND_TIMEOUT:g} s", "run it by hand, then repeat") from None
        except OSError as error:
            raise NotChanged(f"cannot run {self.argv[0]}: {error.strerror}", "mend it, then repeat") from None
        if done.returncode != 0:
            words = block((done.stderr + done.stdout).decode("utf-8", "replace").strip())
            raise NotChanged(f"{said} failed with exit code {done.returncode}:\n{words}", "mend that, then repeat")


class Edit:
    """An edit of one file. `change` gets the text, empty if there is no file, and gives the new one with its lines.

    A text that comes out empty, or as an empty object, was nothing but ours: the file goes, unless it is a link, and
    in a project its folder if that is empty.
    """

    def __init__(self, path: str, change: Callable[[str], tuple[str, list[str]]], *, private: bool) -> None:
        self.path = path
        self._change = change
        self._private = private

    def _changed(self, before: bytes | None) -> tuple[bytes | None, list[str]]:
        try:
            text = (before or b"").decode()
            after, lines = self._change(text)
        except UnicodeDecodeError:
            raise NotChanged(
                f"{self.path} is not UTF-8; it was left as it is", f"mend {self.path}, then repeat"
            ) from None
        except Unparsable as error:
            raise NotChanged(
                f"{self.path} cannot be edited, and was left as it is: {error}", f"mend {self.path}, then repeat"
            ) from None
        if not lines:
            return before, []
        gone = after.strip() in ("", "{}") and not os.path.islink(self.path)
        return (None if gone else after.encode()), lines

    def plan(self) -> Report | None:
        before = read(self.path)
        after, lines = self._changed(before)
        if after == before:
            return None
        return Report("edit" if after is not None else "remove", self.path, lines)

    def apply(self, kept: Kept) -> Report | None:
        before = read(self.path)
        after, lines = self._changed(before)
        if after == before:
            return None
        if after is None:
            self._remove()
            return Report("remove", self.path, lines)
        backup = None if before is None or self.path in kept else back_up(self.path, before)
        try:
            write(self.path, after, before, private=self._private)
        except BaseException:
            if backup is not None:
                os.unlink(backup)
            raise
        kept.setdefault(self.path, backup)
        return Report("edit", self.path, lines, backup)

    def _remove(self) -> None:
        try:
            os.unlink(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        if not self._private:
            with contextlib.suppress(OSError):  # there are other files in it
                os.rmdir(os.path.dirname(self.path))


class Folder:
    """Files of ours in a folder of ours. None takes the folder away."""

    def __init__(self, path: str, files: dict[str, bytes] | None) -> None:
        self.path = path
        self._files = files

    def _stale(self) -> list[str]:
        assert self._files is not None
        return [name for name, data in self._files.items() if read(os.path.join(self.path, name)) != data]

    def _stray(self) -> list[str]:
        assert self._files is not None
        found = [os.path.join(folder, name) for folder, _, names in os.walk(self.path) for name in names]
        return [path for path in found if os.path.relpath(path, self.path) not in self._files]

    def plan(self) -> Report | None:
        if self._files is None:
            return Report("remove", self.path) if os.path.isdir(self.path) else None
        stale = self._stale()
        return Report("write", self.path, [f"+ {name}" for name in stale]) if stale or self._stray() else None

    def apply(self, kept: Kept) -> Report | None:
        report = self.plan()
        try:
            if self._files is None:
                if report is not None:
                    shutil.rmtree(self.path)
                    with contextlib.suppress(OSError):  # there are other files in it
                        os.rmdir(os.path.dirname(self.path))
                return report
            # File by file, for a session may start from them at any moment.
            for name in self._stale():
                path = os.path.join(self.path, name)
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                replace(path, self._files[name])
            for path in self._stray():
                os.unlink(path)
        except OSError as error:
            raise cannot_write(error.filename or self.path, error) from None
        return report


def json_edit(path: str, change: Callable[[JsonText], None], *, private: bool, comments: bool = False) -> Edit:
    def edit(text: str) -> tuple[str, list[str]]:
        document = JsonText(text, comments=comments)
        change(document)
        return document.text, document.said

    return Edit(path, edit, private=private)


def look(path: str, *keys: str, comments: bool = False) -> Any:
    """The value there in a JSON file, None if there is none. Raises `NotChanged` if the file is not built so."""
    found: list[Any] = []
    json_edit(path, lambda document: found.append(document.get(*keys)), private=True, comments=comments).plan()
    return found[0]


def toml_edit(path: str, group: str, name: str, change: Callable[[TomlTable], None], *, private: bool) -> Edit:
    # tomlkit takes longer to load than all else here, and the commands that only ask where things are pass by.
    from meshctl.install.tomltable import TomlTable

    def edit(text: str) -> tuple[str, list[str]]:
        table = TomlTable(text, group, name)
        change(table)
        return table.text, _difference(text, table.text)

    return Edit(path, edit, private=private)


def _difference(before: str, after: str) -> list[str]:
    import difflib

    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [f"{line[0]} {line[1:]}" for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
