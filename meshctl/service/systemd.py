"""The service under `systemd --user`: a socket that stays, and a daemon behind it."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from typing import Any

from meshctl.service.manager import NEXT_WITHOUT, NoManager, NotRunning, State
from meshctl.service.marked import Marked, marked
from meshctl.service.template import shipped
from meshctl.service.unit import command_line, effective, runtime_dir, unquoted
from meshd import paths
from meshd.core.text import one_line

SERVICE, SOCKET = "meshd.service", "meshd.socket"
UNITS = (SOCKET, SERVICE)
# Where packages and administrators put units for every user; the user's own folder comes before all of them.
_SHARED = ("/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user", "/lib/systemd/user")
_WANTS = (f"sockets.target.wants/{SOCKET}", f"default.target.wants/{SERVICE}")
# What decides which files a daemon uses: the manager's and this shell's must be the same.
_SAME = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
_TIMEOUT = 120.0  # seconds; a start or stop has limits of its own in the unit, and these are shorter
_LINGER = "/var/lib/systemd/linger"


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
        if self._packaged() is not None and not os.path.exists(os.path.join(self.folder, SERVICE)):
            return []
        made = []
        for unit in UNITS:
            text = shipped(f"systemd/{unit}").decode().replace("@MESHD@", command_line())
            made.append(marked(os.path.join(self.folder, unit), text))
        return made

    def installed(self) -> str | None:
        found = (os.path.join(folder, SERVICE) for folder in (self.folder, *_SHARED))
        return next((path for path in found if os.path.exists(path)), None)

    def is_enabled(self) -> bool:
        wanted = _WANTS[0]
        return any(os.path.lexists(os.path.join(folder, wanted)) for folder in (self.folder, _SHARED[0]))

    def serves(self) -> bool:
        # A job of cron may run when no manager does.
        return self.is_enabled() and os.path.exists(os.path.join(runtime_dir(), "systemd", "private"))

    @staticmethod
    def _packaged() -> str | None:
        """The unit that a package has brought, if it runs the `meshd` of this installation."""
        ours = {sys.executable, os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "meshd")}
        for path in (os.path.join(folder, SERVICE) for folder in _SHARED):
            with contextlib.suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8") as file:
                run = re.search(r"^ExecStart=(\S+)", file.read(), re.MULTILINE)
                if run is not None and run[1] in ours:
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
                    f"the systemd of this user runs with {name}={there or '(unset)'}, this shell with "
                    f"{here or '(unset)'}: the service would use other files than your commands",
                    f"use a shell with the same {name}, or set it for all in ~/.config/environment.d and log in again",
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
        user = pwd.getpwuid(os.getuid()).pw_name
        return NoManager(
            f"systemd does not run for this user, or cannot be reached: {why}",
            f"log in as {user} itself (not by su or sudo), or: sudo loginctl enable-linger {user}; "
            f"without a service: {NEXT_WITHOUT}",
        )

    # --- what it does ---

    def enable(self) -> list[str]:
        return [self._must("daemon-reload"), self._must("enable", SERVICE)]

    def disable(self) -> list[str]:
        return [self._must("disable", SERVICE, SOCKET)]

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
        self._must("start", SOCKET)
        done = self._run(verb, SERVICE)
        if done.returncode:
            state = self.state()
            why = state.said or f"{state.result or state.active}, see the log"
            raise NotRunning(
                f"systemd did not {verb} {SERVICE}: {one_line(why)}", f"journalctl --user -u {SERVICE} -n 20"
            )

    def stop(self) -> None:
        self._must("stop", SOCKET, SERVICE)

    def state(self) -> State:
        facts = self._show("ActiveState", "MainPID", "NRestarts", "StatusText", "Result", "NeedDaemonReload")
        pid, restarts = facts.get("MainPID", "0"), facts.get("NRestarts", "")
        return State(
            active=facts.get("ActiveState", "unknown"),
            pid=int(pid) if pid.isdigit() and pid != "0" else None,
            enabled=self.is_enabled(),
            restarts=int(restarts) if restarts.isdigit() else None,
            said=facts.get("StatusText", ""),
            result=facts.get("Result", ""),
            stale=facts.get("NeedDaemonReload") == "yes",
        )

    def _stale(self) -> bool:
        return any(self._show("NeedDaemonReload", unit=unit).get("NeedDaemonReload") == "yes" for unit in UNITS)

    def lasting(self) -> dict[str, Any]:
        user = pwd.getpwuid(os.getuid()).pw_name
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
            why = done.stderr.strip() if done.returncode else ""
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
            why = one_line(done.stderr.strip() or f"exit {done.returncode}")
            raise NoManager(
                f"systemctl --user {' '.join(arguments)} failed: {why}", "systemctl --user status meshd.socket"
            )
        return f"systemctl --user {' '.join(arguments)}"

    @staticmethod
    def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ) | {"LC_ALL": "C", "XDG_RUNTIME_DIR": runtime_dir()}
        command = ["systemctl", "--user", "--no-ask-password", *arguments]
        try:
            return subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoManager(f"cannot run systemctl: {error}", NEXT_WITHOUT) from None
