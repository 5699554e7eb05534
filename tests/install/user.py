"""A user with a home and a project, and only those programs on PATH that a test gives them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helper import wait_until
from tests.helper.processes import state_of

OUR_PROGRAM = str(Path(sys.executable).parent / "meshctl")


class User:
    def __init__(self, path: Path) -> None:
        self.home = path / "home"
        self.project = path / "project"
        self.bin = path / "bin"
        for folder in (self.home, self.project, self.bin):
            folder.mkdir(parents=True)
        self.env = {"HOME": str(self.home), "PATH": str(self.bin), "LANG": "C.UTF-8", "PYTHONWARNINGS": "default"}
        self.through: Sequence[str] = ()

    def has(self, name: str, script: str) -> None:
        """Put a program on PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(0o755)

    def file(self, name: str, text: str | bytes) -> Path:
        """Write a file below the home."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def command(self, *arguments: str) -> list[str]:
        return [*self.through, sys.executable, "-m", "meshctl", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `meshctl` in the project's folder, with no terminal."""
        return subprocess.run(
            self.command(*arguments),
            env=self.env,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def meshctl(self, *arguments: str) -> str:
        """Standard output of a `meshctl` that must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.meshctl(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        """Standard error of a `meshctl` that must fail, and leave every file of the user as it was."""
        before = self.files()
        done = self.run(*arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        assert self.files() == before
        assert "\n  next: " in done.stderr
        return done.stderr

    def answer(self, keys: str, *arguments: str) -> tuple[int, str]:
        """A `meshctl` on a terminal where somebody types `keys` when asked: its exit code and what was shown.

        `^C` is the interrupt from the keyboard.
        """
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.env,
            cwd=self.project,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        try:

            def asked() -> bool:
                nonlocal shown
                shown += os.read(ours, 1 << 16)
                return b"[y/N]" in shown

            wait_until(asked, "it asks")
            if keys == "^C":
                # Python leaves a signal that comes right before it reads for after that.
                wait_until(lambda: state_of(process.pid) == "S", "it waits for the answer")
                process.send_signal(signal.SIGINT)
            else:
                os.write(ours, keys.encode())
            code = process.wait(30)
            while chunk := _read(ours):
                shown += chunk
        finally:
            os.close(ours)
            if process.poll() is None:
                process.kill()
                process.wait()
        return code, shown.decode().replace("\r\n", "\n")

    def files(self) -> dict[str, tuple[int, bytes | str]]:
        """Everything in home and project: path -> mode, and content or where a link leads."""
        found: dict[str, tuple[int, bytes | str]] = {}
        for top in (self.home, self.project):
            for path in sorted(top.rglob("*")):
                mode = path.lstat().st_mode
                if path.is_symlink():
                    found[str(path)] = mode, os.readlink(path)
                elif path.is_file():
                    found[str(path)] = mode, path.read_bytes()
        return found

    def backups(self) -> list[Path]:
        return sorted(path for top in (self.home, self.project) for path in top.rglob("*.bak"))


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 16)
    except OSError:  # how a terminal says that nobody is at its other end
        return b""
