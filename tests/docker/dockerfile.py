"""A Dockerfile's steps as a shell script that carries them out on copies of this machine's root.

It knows what ours uses. The base image is this machine with an environment of its Python at the front of PATH: so the
steps are tried, and not the image that they are meant for.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path

_PASSED_ON = ("PIP_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


def steps(text: str) -> list[tuple[str, str]]:
    """(instruction, argument) of each step, its lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


class Image:
    """The last stage, as the steps leave it: `script` makes it at `$W/<stage>/root`, and the rest is how it is run."""

    def __init__(self, dockerfile: Path, context: Path) -> None:
        self.stage = ""
        self.volumes: list[str] = []
        self.command: list[str] = []
        self.health: list[str] = []
        self.user = "0:0"
        self.folder = "/"
        self.env: dict[str, str] = {}
        self._context = context
        self._lines: list[str] = []
        for instruction, rest in steps(dockerfile.read_text()):
            getattr(self, f"_{instruction.lower()}")(rest)

    @property
    def script(self) -> str:
        return "\n".join(self._lines)

    def inside(self, command: list[str], **variables: str) -> str:
        """A shell command that runs the command as the image's user."""
        env = [f"{key}={value}" for key, value in (self.env | variables).items()]
        words = shlex.join(["/usr/bin/env", "-i", *env, *command])
        return f'chroot --userspec={self.user} "$W/{self.stage}/root" {words}'

    def _arg(self, rest: str) -> None:
        """Names the base image, which is not used."""

    def _label(self, rest: str) -> None:
        """Nothing to do."""

    def _from(self, rest: str) -> None:
        self.stage = rest.partition(" AS ")[2] or "last"
        self.env, self.folder, self.user = {"PATH": "/opt/base/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "/", "0:0"
        at = f'"$W/{self.stage}"'
        self._lines += [
            f"mkdir {at} {at}/upper {at}/work {at}/root",
            f"mount -t overlay -o lowerdir=/,upperdir={at}/upper,workdir={at}/work none {at}/root",
            *(f"mount --rbind /{folder} {at}/root/{folder}" for folder in ("proc", "dev", "sys")),
            f'chroot {at}/root "$PYTHON" -m venv /opt/base',
            # The image's user must reach a Python that may lie in somebody's home.
            f'p=$PYTHON; while p=$(dirname "$p"); [ "$p" != / ]; do chmod o+x {at}/root"$p"; done',
        ]

    def _workdir(self, rest: str) -> None:
        self.folder = rest
        self._lines.append(f'mkdir -p "$W/{self.stage}/root{rest}"')

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        target = target if target.startswith("/") else f"{self.folder}/{target.removeprefix('./')}"
        origin = shlex.quote(str(self._context))
        if sources[0].startswith("--from="):
            origin = f'"$W/{sources.pop(0).removeprefix("--from=")}/root"'
        for source in sources:
            # Docker copies what is in a folder.
            whole = f"{origin}/{source.lstrip('/')}"
            to = f'"$W/{self.stage}/root{target}"'
            self._lines.append(f"if [ -d {whole} ]; then mkdir -p {to}; cp -a {whole}/. {to}; else cp {whole} {to}; fi")

    def _run(self, rest: str) -> None:
        given = {key: value for key, value in os.environ.items() if key.startswith(_PASSED_ON)}
        self._lines.append(self.inside(["sh", "-ec", f"cd {self.folder}; {rest}"], **given))

    def _env(self, rest: str) -> None:
        for pair in shlex.split(rest):
            key, _, value = pair.partition("=")
            self.env[key] = re.sub(r"\$(\w+)", lambda found: self.env[found[1]], value)

    def _user(self, rest: str) -> None:
        self.user = rest

    def _volume(self, rest: str) -> None:
        self.volumes = json.loads(rest)

    def _healthcheck(self, rest: str) -> None:
        self.health = json.loads(rest[rest.index("CMD ") + 4 :])

    def _cmd(self, rest: str) -> None:
        self.command = json.loads(rest)


def context(folder: Path, root: Path, ignore: Path) -> Path:
    """What Docker would be sent: a copy of what the ignore file lets through."""
    lines = [line for line in ignore.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "all that is not named is kept back"
    folder.mkdir()
    for name in (line[1:] for line in lines if line.startswith("!")):
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, folder / name)
    return folder
