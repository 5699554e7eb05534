"""A Debian that is made for the test and booted: its own systemd as PID 1, logind, PAM, and sessions of its users."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from tests.helper import wait_until

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "polkitd"),
    *("login", "passwd", "sudo", "procps", "man-db", "python3", "python3-venv", "pipx", "redis-server"),
)
PROGRAMS = ("apt-get", "mmdebstrap", "systemd-nspawn", "unshare", "nsenter")
USERS = ("ann", "ben")
# What pip finds its index and certificates by, here and so there.
_PIP_FILES = ("/etc/pip.conf", "/etc/ssl/certs")
_PIP_VARIABLES = ("PIP_", "SSL_", "REQUESTS_CA_BUNDLE")
_REBOOTS = 133  # what nspawn ends with then, where no manager starts it again (systemd-nspawn(1), --keep-unit)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT = 60.0  # seconds
COMMAND = 60.0
NONE: Mapping[str, str] = {}

# $1 is the name of a control group, which is not below that of this test; then the command. What is mounted is gone
# with the command: this runs in a mount namespace of its own.
_START = """
set -e
[ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 none /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1" /run/systemd
echo $$ > "/sys/fs/cgroup/$1/cgroup.procs"
mount -t tmpfs tmpfs /run/systemd
shift
exec "$@"
"""
_END = """
[ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 none /sys/fs/cgroup
cd /sys/fs/cgroup
echo 1 > "$1/cgroup.kill"
for i in $(seq 500); do
    grep -q 'populated 0' "$1/cgroup.events" && break
    sleep 0.01
done
find "$1" -depth -type d -exec rmdir {} ';'
"""
# A login shell that runs the files whose names it reads, one after the other, until nobody can write names any more.
_SESSION = """
while read -r file; do
    (. "$file") >"$file.out" 2>"$file.err" </dev/null
    echo $? >"$file.new"
    mv "$file.new" "$file.code"
done <"$1"
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Machine:
    """`root` is its file system as its own processes see it, while it runs."""

    def __init__(self, folder: Path) -> None:
        self._tree = folder / "root"
        self.share = folder / "share"
        self._log = folder / "console.log"
        self._notify = tempfile.mkdtemp(prefix="mb")  # the path of a socket must be short
        self._group = f"agent-mesh-boot-{os.getpid()}"
        self._count = 0
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0
        self.share.mkdir()
        self.share.chmod(0o777)
        (self.share / "session").write_text(_SESSION)
        (self.share / "session").chmod(0o644)

    def make(self) -> None:
        """Skips if Debian cannot be had."""
        if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
            pytest.skip(f"not installed: {', '.join(missing)}; tests/boot/run installs it")
        codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"]
        command += ["--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*"]
        command += ['--aptopt=Acquire::Languages "none"']
        # Its network is this machine's: a Redis there would be one here.
        command += ['--customize-hook=chroot "$1" systemctl disable -q redis-server']
        for user in USERS:
            command += [f'--customize-hook=chroot "$1" useradd --create-home --shell /bin/bash {user}']
        done = subprocess.run([*command, codename, self._tree, _mirror(codename)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a new Debian {codename} could not be made: {done.stderr[-500:]}")
        rules = self._tree / "etc" / "sudoers.d" / "users"
        rules.write_text("".join(f"{user} ALL=(ALL) NOPASSWD: ALL\n" for user in USERS))
        rules.chmod(0o440)
        # The manager of a user ends with the last session, and not ten seconds later.
        logind = self._tree / "etc" / "systemd" / "logind.conf.d" / "test.conf"
        logind.parent.mkdir()
        logind.write_text("[Login]\nUserStopDelaySec=0\n")

    def boot(self) -> None:
        """Returns when it is up. Skips if it does not come up for the first time: no container does here."""
        address = os.path.join(self._notify, "s")
        binds = [f"--bind-ro={path}" for path in _given() if os.path.exists(path)]
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", _START, "sh", self._group]
        command += ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"]
        command += ["--notify-ready=yes", "--resolv-conf=bind-host", f"--directory={self._tree}"]
        command += [f"--bind={self.share}:/share", *binds]
        said: list[str] = []  # by nspawn, in the words of sd_notify(3)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, open(self._log, "ab") as log:
            told.bind(address)
            told.settimeout(0.2)
            environment = os.environ | {"NOTIFY_SOCKET": address}
            self._nspawn = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            until = time.monotonic() + BOOT
            while "READY=1" not in said and self._nspawn.poll() is None and time.monotonic() < until:
                with contextlib.suppress(TimeoutError):
                    said += told.recv(4096).decode().splitlines()
        os.unlink(address)
        if "READY=1" not in said:
            why = f"the container does not boot: {self._log.read_text(errors='replace')[-500:]}"
            pytest.fail(why) if self.leader else pytest.skip(why)
        self.leader = int(next(line for line in said if line.startswith("X_NSPAWN_LEADER_PID=")).partition("=")[2])

    def reboot(self) -> None:
        """As its administrator does it; returns when it is up again."""
        assert self._nspawn is not None
        self.sh("systemctl --no-block reboot")
        assert self._nspawn.wait(BOOT) == _REBOOTS
        self.boot()

    def close(self) -> None:
        """Its processes are killed, and its files stay."""
        subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", _END, "sh", self._group],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        if self._nspawn is not None:
            self._nspawn.kill()
            self._nspawn.wait()
        shutil.rmtree(self._notify)

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.leader}/root")

    def home(self, user: str) -> Path:
        return self.root / "home" / user

    # --- as its administrator ---

    def try_sh(self, script: str, deadline: float = COMMAND) -> Done:
        """As root, and in no session."""
        done = subprocess.run(
            self.enter("sh", "-c", script), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=deadline
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def enter(self, *command: str) -> list[str]:
        """What runs the command there as root."""
        return ["nsenter", "-a", "-t", str(self.leader), "env", "-i", f"PATH={_PATH}", "LC_ALL=C.UTF-8", *command]

    def sh(self, script: str) -> str:
        """Standard output of a script that must succeed."""
        done = self.try_sh(script)
        assert done.code == 0, f"{script}: {done}"
        return done.out

    def journal(self, user: str, *arguments: str) -> list[str]:
        """What the user's daemon has said, and the user's manager of it, oldest first."""
        uid = f"_UID={self.uid(user)}"
        wanted = [*arguments, uid, "USER_UNIT=meshd.service", "+", uid, "_SYSTEMD_USER_UNIT=meshd.service"]
        return self.sh(f"journalctl --sync; journalctl -q -o cat {shlex.join(wanted)}").splitlines()

    # --- as its users ---

    @contextlib.contextmanager
    def login(self, user: str) -> Iterator[Login]:
        """A session of the user; its end is the logout."""
        session = Login(self, user)
        try:
            yield session
        finally:
            session.logout()

    def is_served(self, user: str) -> bool:
        """Whether the user has a runtime folder: from the first login to the end of the user's manager."""
        return (self.root / "run" / "user" / str(self.uid(user))).exists()

    def uid(self, user: str) -> int:
        lines = (self._tree / "etc" / "passwd").read_text().splitlines()
        return next(int(line.split(":")[2]) for line in lines if line.startswith(f"{user}:"))

    def number(self) -> int:
        self._count += 1
        return self._count


class Shell:
    """What runs scripts as a user."""

    def __init__(self, user: str) -> None:
        self.user = user

    def run(self, script: str, deadline: float = COMMAND, variables: Mapping[str, str] = NONE) -> Done:
        """In a process of its own: what it sets or where it goes is gone with it. Fails after `deadline` seconds."""
        raise NotImplementedError

    def sh(self, script: str, deadline: float = COMMAND, variables: Mapping[str, str] = NONE, *, code: int = 0) -> str:
        """Both outputs of a script that must end with that code, standard output first."""
        done = self.run(script, deadline, variables)
        assert done.code == code, f"{script}: exit {done.code}\n{done.out}{done.err}"
        return done.out + done.err


class Cron(Shell):
    """No session, no login shell, and next to nothing in the environment."""

    def __init__(self, machine: Machine, user: str) -> None:
        super().__init__(user)
        self._machine = machine

    def run(self, script: str, deadline: float = COMMAND, variables: Mapping[str, str] = NONE) -> Done:
        home = f"/home/{self.user}"
        given = {"HOME": home, "LOGNAME": self.user, "SHELL": "/bin/sh", "PATH": f"{home}/.local/bin:/usr/bin:/bin"}
        become = ["setpriv", "--reuid", self.user, "--regid", self.user, "--init-groups", "env", "-i"]
        words = [*become, *(f"{name}={value}" for name, value in {**given, **variables}.items()), "sh", "-c", script]
        return self._machine.try_sh(f"cd {home} && exec {shlex.join(words)}", deadline)


class Login(Shell):
    """A login shell of a user: through PAM, known to logind, with the user's own manager."""

    def __init__(self, machine: Machine, user: str) -> None:
        super().__init__(user)
        self._share, self._number = machine.share, machine.number
        self._name = f"login-{machine.number()}"
        names = self._share / self._name
        os.mkfifo(names)
        names.chmod(0o666)
        # For reading, too: so it is open at once. It ends for the shell when it is closed here.
        self._names: IO[bytes] | None = open(os.open(names, os.O_RDWR), "wb", buffering=0)  # noqa: SIM115  # till logout
        command = ["systemd-run", "--quiet", "--collect", "--wait", f"--unit={self._name}", "--property=PAMName=login"]
        command += [f"--property=User={user}", f"--property=WorkingDirectory=/home/{user}"]
        command += [f"--setenv={name}={value}" for name, value in _variables().items()]
        command += ["--setenv=XDG_SESSION_CLASS=user", "--setenv=XDG_SESSION_TYPE=tty"]  # as on a terminal
        command += ["bash", "-l", "/share/session", f"/share/{self._name}"]
        with open(f"{names}.log", "wb") as log:
            self._shell = subprocess.Popen(machine.enter(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.sh(":")

    def run(self, script: str, deadline: float = COMMAND, variables: Mapping[str, str] = NONE) -> Done:
        assert self._names is not None
        name = f"{self._name}.{self._number()}"
        file = self._share / name
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in variables.items())
        file.write_text(f"{exports}{script}\n")
        file.chmod(0o644)
        self._names.write(f"/share/{name}\n".encode())
        code = file.with_name(f"{name}.code")
        wait_until(lambda: code.exists() or self._shell.poll() is not None, f"{self.user}: {script}", deadline)
        assert code.exists(), f"the session has ended: {(self._share / f'{self._name}.log').read_text()}"
        out, err = (file.with_name(f"{name}.{what}").read_text(errors="replace") for what in ("out", "err"))
        return Done(int(code.read_text()), out, err)

    def logout(self) -> None:
        """Returns when the session is over; its user's manager may still be ending. A second time does nothing."""
        if self._names is not None:
            self._names.close()
            self._names = None
            self._shell.wait(COMMAND)


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_PIP_VARIABLES)}


def _given() -> list[str]:
    """The paths that are there as they are here."""
    files = [value for value in _variables().values() if os.path.isabs(value) and os.path.isfile(value)]
    return sorted({*_PIP_FILES, *files})


def _mirror(codename: str) -> str:
    """Where this machine's own apt has Debian from, in whichever format its sources are."""
    asked = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)",
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
    )
    lines = [line.split() for line in asked.stdout.splitlines()]
    # Others name their own releases alike. Where no lists were fetched yet, nobody knows the origin.
    found = [uri for uri, *words in lines if words in ([codename, "main", "Debian"], [codename, "main"])]
    if not found:
        pytest.skip(f"apt's sources name no {codename} main: {asked.stderr[-300:]}")
    return found[0]
