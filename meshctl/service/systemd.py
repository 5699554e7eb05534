"""The service under `systemd --user`: a socket that stays, and a daemon behind it."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from meshctl.service.contract import LOG, NEXT_WITHOUT, NoManager, ServiceDown, State, cure
from meshctl.service.handover import by_hand
from meshctl.service.marked import Marked, marked
from meshctl.service.template import shipped
from meshctl.service.unit import command_line, effective, runtime_dir, unquoted
from meshd import paths
from meshd.core.text import one_line
from meshd.service.manager import UNIT as SERVICE

SOCKET = "meshd.socket"
UNITS = (SOCKET, SERVICE)
# Where packages and administrators put units for every user; the user's own folder comes before all of them.
_SHARED = ("/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user", "/lib/systemd/user")
_WANTS = (f"sockets.target.wants/{SOCKET}", f"default.target.wants/{SERVICE}")
# What decides which files a daemon uses: the manager's and this shell's must be the same.
_SAME = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
_TIMEOUT = 120.0  # seconds; a start or stop has limits of its own in the unit, and these are shorter
_LINGER = "/var/lib/systemd/linger"
_NOT_LOADED = 5  # systemctl's exit code: there is no such unit


class Systemd:
    """A `Manager`."""

    name = "systemd"
    keeps_socket = True

    # --- files ---

    @property
    def folder(self) -> str:
        config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
        return os.path.join(config, "systemd", "user")

    def files(self) -> list[Marked]:
        """Empty if a package of this same installation has brought the units."""
        if self._packaged() is not None and not os.path.lexists(os.path.join(self.folder, SERVICE)):
            return []
        made = []
        for unit in UNITS:
            text = shipped(f"systemd/{unit}").decode().replace("@MESHD@", command_line())
            text = text.replace("@PROGRAM@", sys.executable.replace("%", "%%"))
            made.append(marked(os.path.join(self.folder, unit), text))
        return made

    def installed(self) -> str | None:
        return self._file_of(SERVICE)

    def _file_of(self, unit: str) -> str | None:
        found = (os.path.join(folder, unit) for folder in (self.folder, *_SHARED))
        return next((path for path in found if os.path.isfile(path)), None)  # a masked one is a link to no file

    def is_enabled(self) -> bool:
        wanted = _WANTS[0]
        return any(os.path.lexists(os.path.join(folder, wanted)) for folder in (self.folder, _SHARED[0]))

    def serves(self) -> bool:
        # A job of cron may run when no manager does; and a link to the unit may be all that is left of it.
        there = self.is_enabled() and self.installed() is not None
        return there and os.path.exists(os.path.join(runtime_dir(), "systemd", "private"))

    @staticmethod
    def _packaged() -> str | None:
        """The unit that a package has brought, if it runs the `meshd` of this installation."""
        ours = os.path.dirname(sys.executable)
        for path in (os.path.join(folder, SERVICE) for folder in _SHARED):
            with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8") as file:
                run = re.search(r"^ExecStart=(\S+)", file.read(), re.MULTILINE)
                # A program of ours, to which it may be a link; or our Python, which is a link to another one's.
                if run and (run[1] == sys.executable or os.path.dirname(os.path.realpath(run[1])) == ours):
                    return path
        return None

    # --- is it there, and is it ours ---

    def check(self) -> None:
        program = shutil.which("systemctl")
        if program is None:
            raise NoManager(
                "there is no systemd here, and no other service manager that agent-mesh knows", NEXT_WITHOUT
            )
        theirs = self._environment()
        for name in _SAME:
            here, there = effective(name, dict(os.environ)), effective(name, theirs)
            if here != there:
                raise NoManager(
                    f"the systemd of this user runs with {name}={there}, this shell with {here}: "
                    "the service would use other files than your commands",
                    f"export {name}={shlex.quote(there)}  # or set yours in ~/.config/environment.d, and log in again",
                )
        served = os.path.join(theirs.get("XDG_RUNTIME_DIR", ""), paths.APP, "meshd.sock")
        if len(os.fsencode(served)) > paths.SOCKET_PATH_BUDGET:
            raise NoManager(f"the path of the socket would be too long: {served}", NEXT_WITHOUT)

    def _environment(self) -> dict[str, str]:
        """The manager's own environment. Raises `NoManager` if it does not answer."""
        done = self._run("show-environment")
        if done.returncode:
            raise self._unreachable(done)
        pairs = (line.partition("=") for line in done.stdout.splitlines())
        return {name: unquoted(value) for name, _, value in pairs}

    @staticmethod
    def _unreachable(done: subprocess.CompletedProcess[str]) -> NoManager:
        why = one_line(done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"exit {done.returncode}")
        user = _user()
        return NoManager(
            f"systemd does not run for this user, or cannot be reached: {why}",
            f"sudo loginctl enable-linger {user}  # or log in as {user} itself, not by su or sudo; "
            f"without a service: {NEXT_WITHOUT}",
        )

    # --- what it does ---

    def enable(self) -> list[str]:
        return [self._must("daemon-reload"), self._must("enable", SERVICE)]

    def disable(self) -> list[str]:
        there = [unit for unit in (SERVICE, SOCKET) if self._file_of(unit)]
        return [self._must("disable", *there)] if there else []

    def forget(self) -> None:
        for wanted in _WANTS:
            path = os.path.join(self.folder, wanted)
            # Only a link that leads nowhere any more: it may be to the unit of a package.
            if os.path.islink(path) and not os.path.exists(path):
                with contextlib.suppress(OSError):
                    os.unlink(path)
        with contextlib.suppress(NoManager):
            self._must("daemon-reload")
            self._run("reset-failed", *UNITS)

    def start(self) -> None:
        self._begin("start")

    def restart(self) -> None:
        self._begin("restart")

    def _begin(self, verb: str) -> None:
        if self._stale():
            self._must("daemon-reload")
        # A limit that was reached by failures that are mended now, or by this very command given often.
        self._run("reset-failed", *UNITS)
        self._ask("start", SOCKET)
        self._ask(verb, SERVICE)
        if not _listens():
            # Somebody has removed the socket's path, or bound another one there; systemd doesn't look.
            self.stop()
            self._ask("start", SOCKET)
            self._ask("start", SERVICE)

    def _ask(self, verb: str, unit: str) -> None:
        """Start or restart the unit. Raises `ServiceDown` with the reason that the daemon, or else systemd, gives."""
        done = self._run(verb, unit)
        if not done.returncode:
            return
        facts = self._show("StatusText", "Result", "LoadState", unit=unit)
        why, hint = cure(facts.get("StatusText", ""))
        if facts.get("LoadState") == "masked":
            why, hint = "it is masked", f"systemctl --user unmask {unit}"
        elif not why:
            why = _result(facts) or done.stderr.strip() or f"exit {done.returncode}"
            hint = LOG if unit == SERVICE else f"systemctl --user status {unit}"
        raise ServiceDown(f"systemd did not {verb} {unit}: {one_line(why)}", f"{hint}; then: meshctl service {verb}")

    def stop(self) -> None:
        # systemd closes the socket last of all, and turns away who comes until then, again and again, as if the daemon
        # had crashed. Whoever finds no path knows at once that there is nobody.
        if by_hand(self.state().pid) is None:  # else it is that one's path
            with contextlib.suppress(OSError):
                os.unlink(_path())
        arguments = ("stop", SOCKET, SERVICE)
        done = self._run(*arguments)
        if done.returncode not in (0, _NOT_LOADED):
            raise self._refused(arguments, done)

    def state(self) -> State:
        facts = self._show("ActiveState", "MainPID", "NRestarts", "StatusText", "Result", "NeedDaemonReload")
        pid, restarts = facts.get("MainPID", "0"), facts.get("NRestarts", "")
        return State(
            active=facts.get("ActiveState", "unknown"),
            pid=int(pid) if pid.isdigit() and pid != "0" else None,
            enabled=self.is_enabled(),
            restarts=int(restarts) if restarts.isdigit() else None,
            said=facts.get("StatusText", ""),
            result=_result(facts),
            stale=facts.get("NeedDaemonReload") == "yes",
        )

    def _stale(self) -> bool:
        return any(self._show("NeedDaemonReload", unit=unit).get("NeedDaemonReload") == "yes" for unit in UNITS)

    def lasting(self) -> dict[str, Any]:
        user = _user()
        known = os.path.isdir(os.path.dirname(_LINGER))
        return {
            "lasts": os.path.exists(os.path.join(_LINGER, user)) if known else None,
            "how": "linger",
            "command": f"loginctl enable-linger {user}",
        }

    def last(self) -> None:
        """Turn linger on. Raises `NoManager` with what loginctl says."""
        command = self.lasting()["command"].split()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
            why = (done.stderr.strip() or f"exit {done.returncode}") if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
        if why:
            raise NoManager(f"linger was not turned on: {one_line(why)}", f"sudo {' '.join(command)}")

    # --- systemctl ---

    def _show(self, *names: str, unit: str = SERVICE) -> dict[str, str]:
        done = self._run("show", "--property", ",".join(names), unit)
        if done.returncode:
            raise self._unreachable(done)
        return {name: value for name, _, value in (line.partition("=") for line in done.stdout.splitlines())}

    def _must(self, *arguments: str) -> str:
        """Run it; the command line. Raises `NoManager` if systemd refuses."""
        done = self._run(*arguments)
        if done.returncode:
            raise self._refused(arguments, done)
        return f"systemctl --user {' '.join(arguments)}"

    @staticmethod
    def _refused(arguments: Sequence[str], done: subprocess.CompletedProcess[str]) -> NoManager:
        why = one_line(done.stderr.strip() or f"exit {done.returncode}")
        return NoManager(
            f"systemctl --user {' '.join(arguments)} failed: {why}", f"systemctl --user status {' '.join(UNITS)}"
        )

    @staticmethod
    def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ) | {"LC_ALL": "C", "XDG_RUNTIME_DIR": runtime_dir()}
        command = ["systemctl", "--user", "--no-ask-password", *arguments]
        try:
            return subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="surrogateescape",  # a unit's file may hold anything, and systemctl quotes it
                timeout=_TIMEOUT,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoManager(f"cannot run systemctl: {error}", NEXT_WITHOUT) from None


def _path() -> str:
    """Of the socket, as its unit names it."""
    return os.path.join(runtime_dir(), paths.APP, "meshd.sock")


def _listens() -> bool:
    """Whether the path of the socket leads to anybody. To be asked of a service that runs: else it starts it."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(_path())
        except OSError:
            return False
    return True


def _result(facts: Mapping[str, str]) -> str:
    """systemd's word for how the unit ended, as in `start-limit-hit`; empty if that was no failure."""
    return facts.get("Result", "").replace("success", "")


def _user() -> str:
    """The name, or the number where nobody has named it, as in a container: loginctl takes both."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
