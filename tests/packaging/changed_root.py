"""A root that looks like this machine's and may be changed: what is written lands in a folder of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

# Writes go to `upper`; /proc, /dev and /sys are the machine's, /tmp and /run are empty.
_SCRIPT = """
set -eu
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" none "$1/root"
for folder in proc dev sys; do mount --rbind "/$folder" "$1/root/$folder"; done
for folder in tmp run; do mount -t tmpfs -o mode=1777 none "$1/root/$folder"; done
cp -R "$1.given/." "$1/root/tmp/"
chroot "$1/root" /usr/bin/env -i HOME=/tmp/home PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TERM=xterm \
    XDG_RUNTIME_DIR=/run/user sh /tmp/script
cd "$1/upper"
echo "== changed"
find . ! -type d
"""


def run_inside(folder: Path, script: str, *given: Path) -> tuple[str, set[str]]:
    """What the shell script prints, and the files that it has changed, removed or left, outside of /tmp and /run.

    The `given` files are in its /tmp. Skips where nobody may mount: as another user than root it takes a kernel
    that lets users do so.
    """
    handed = folder / "root.given"
    handed.mkdir(parents=True)
    (folder / "root").mkdir()
    (handed / "home").mkdir()
    for file in given:
        (handed / file.name).write_bytes(file.read_bytes())
    (handed / "script").write_text(f"set -eu\nmkdir -m 700 /run/user\n{script}")
    command: list[str | Path] = [*mounting(folder / "root"), "sh", "-c", _SCRIPT, "sh", folder / "root"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    out, _, changed = done.stdout.rpartition("== changed\n")
    return out, {line.removeprefix(".") for line in changed.splitlines()}


def mounting(folder: Path) -> list[str]:
    """What is put before a command that mounts such a root; skips where that is not allowed."""
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    probe = 'mount -t tmpfs none "$1" && mkdir "$1/u" "$1/w" "$1/r" && '
    probe += 'mount -t overlay -o "lowerdir=/,upperdir=$1/u,workdir=$1/w" none "$1/r"'
    asked = subprocess.run([*unshare, "sh", "-c", probe, "sh", folder], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"a changed root cannot be mounted here: {asked.stderr.strip()}")
    return unshare
