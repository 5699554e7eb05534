"""A real `systemd --user` for a home: no PID 1, no login, nothing of this machine's own manager touched.

It gets namespaces and a cgroup of its own. Without the cgroup it would take every process of the machine that is in
the root cgroup into one of its own, and with it, ending it is one write: all that it started ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Running
from tests.helper import Home, Store, a_home, wait_until

PROGRAM = "/lib/systemd/systemd"
JOURNALD = "/lib/systemd/systemd-journald"

# Arguments: a folder to mount cgroups at for a moment, the cgroup's name, the script of the second stage, the rest.
_FIRST = """
set -e
mount -t cgroup2 none "$1"
mkdir "$1/$2"
echo $$ > "$1/$2/cgroup.procs"
folder=$1
shift 2
exec unshare -C -m sh -c "$1" "$folder" "$@"
"""
# $0 is the folder; $2 starts a journal if it is not empty; then the manager's environment.
_SECOND = """
set -e
umount "$0"
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /run/systemd
mkdir -p /run/systemd/system /run/systemd/journald.conf.d
if [ -n "$2" ]; then
    mkdir -p /run/log
    mount -t tmpfs tmpfs /run/log
    printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\n' > /run/systemd/journald.conf.d/test.conf
    "$2" &
    while [ ! -S /run/systemd/journal/stdout ]; do sleep 0.02; done
fi
shift 2
exec env -i "$@" /lib/systemd/systemd --user
"""
_END = """
mount -t cgroup2 none "$1"
echo 1 > "$1/$2/cgroup.kill"
for i in $(seq 500); do
    grep -q 'populated 0' "$1/$2/cgroup.events" && break
    sleep 0.01
done
find "$1/$2" -depth -type d -exec rmdir {} ';'
"""


class UserManager:
    """Started for a home, and what its `systemctl` says."""

    def __init__(self, home: Home, *, journal: bool = False) -> None:
        self.home = home
        self._folder = tempfile.mkdtemp(prefix="mcg")
        self._cgroup = f"agent-mesh-test-{os.getpid()}-{time.monotonic_ns()}"
        self._log = home.path / "manager.log"
        variables = {name: home.env[name] for name in ("HOME", "XDG_RUNTIME_DIR", "PATH")}
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", _FIRST, "sh", self._folder, self._cgroup]
        command += [_SECOND, JOURNALD if journal else "", *(f"{name}={value}" for name, value in variables.items())]
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self._runs, "the manager runs")
        except BaseException:
            self.close()
            raise

    def _runs(self) -> bool:
        if self.process.poll() is not None:
            pytest.skip(f"no systemd --user can be started here: {self._log.read_text()[-300:]}")
        return self.ctl("is-system-running").stdout.strip() in ("running", "degraded")

    # --- what runs where the manager runs: elsewhere `systemctl` believes that there is no systemd ---

    def inside(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._enter(*command),
            env=self.home.env | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
        )

    def _enter(self, *command: str) -> list[str]:
        return ["nsenter", "-m", "-t", str(self.process.pid), *command]

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`systemctl --user`."""
        return self.inside("systemctl", "--user", "--no-pager", *arguments)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A whole `meshctl` process."""
        return self.inside(sys.executable, "-m", "meshctl", *arguments, **variables)

    def meshctl(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """Standard output of a `meshctl` that must end with that code."""
        done = self.run(*arguments, **variables)
        assert done.returncode == code, f"meshctl {arguments}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """A `meshctl` in the background, as `Home.begin`."""
        return subprocess.Popen(
            self._enter(sys.executable, "-m", "meshctl", *arguments),
            env=self.home.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[Running]:
        """The same, read line by line; killed at the end if it has not ended by itself."""
        with self.begin(*arguments) as process:
            try:
                yield Running(process)
            finally:
                process.kill()

    def show(self, name: str, unit: str = "meshd.service") -> str:
        return self.ctl("show", "--value", "--property", name, unit).stdout.strip()

    @property
    def pid(self) -> int:
        """Of the daemon that it runs; 0 if none."""
        return int(self.show("MainPID") or 0)

    def drop_in(self, *lines: str) -> None:
        """The user's own lines for the service, in the place where they belong."""
        folder = self.home.path / ".config" / "systemd" / "user" / "meshd.service.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text("[Service]\n" + "".join(f"{line}\n" for line in lines))

    def unit(self, name: str = "meshd.service") -> Path:
        return self.home.path / ".config" / "systemd" / "user" / name

    def close(self) -> None:
        """End it, and everything that it started. A second time does nothing."""
        if not os.path.exists(self._folder):
            return
        subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", _END, "sh", self._folder, self._cgroup],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        self.process.kill()
        self.process.wait()
        os.rmdir(self._folder)

    def __enter__(self) -> UserManager:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def why_not() -> str | None:
    """The reason why none can be started here, None if it is worth trying."""
    missing = [name for name in ("systemctl", "unshare", "nsenter") if shutil.which(name) is None]
    if missing or not os.path.exists(PROGRAM):
        return f"not installed: {', '.join([*missing, *([] if os.path.exists(PROGRAM) else ['systemd'])])}"
    if os.geteuid() != 0:
        return "a manager with namespaces of its own needs root"
    return None


@contextlib.contextmanager
def a_served_home(folder: Path, store: Store, prefix: str) -> Iterator[Home]:
    """A home whose configuration names the store: a service does not see the variables of a shell."""
    with a_home(folder) as home:
        home.config.parent.mkdir(parents=True)
        home.config.write_text(f'redis_url = "{store.url}"\nprefix = "{prefix}"\n')
        yield home


@contextlib.contextmanager
def a_manager(home: Home) -> Iterator[UserManager]:
    """A running `systemd --user` for that home. Skips with the reason where there can be none."""
    if reason := why_not():
        pytest.skip(reason)
    with UserManager(home) as made:
        path = os.environ.get("PYTHONPATH")
        made.drop_in(*([f"Environment=PYTHONPATH={path}"] if path else []))
        yield made
