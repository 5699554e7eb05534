"""The service under launchd: an agent of the user, started at login and again when it has failed."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from meshctl.service.contract import LOG, NEXT_WITHOUT, NoManager, ServiceDown, State
from meshctl.service.handover import answers
from meshctl.service.marked import Marked, marked
from meshctl.service.template import shipped
from meshd import paths
from meshd.core.text import one_line

LABEL = "agent-mesh.meshd"
_BREW = "homebrew.mxcl.agent-mesh"  # the same, as `brew services` installs it
_TIMEOUT = 120.0
_STARTING = 30.0  # seconds
_ENDING = 60.0  # the plist's ExitTimeOut, after which launchd kills, and some more
_PAUSE = 0.1  # launchd tells nobody of a change
_FIRST_LINE = '<?xml version="1.0" encoding="UTF-8"?>\n'


class Launchd:
    """A `Manager`."""

    name = "launchd"
    keeps_socket = False

    @staticmethod
    def _path(label: str) -> str:
        return os.path.join(os.path.expanduser("~"), "Library", "LaunchAgents", f"{label}.plist")

    def files(self) -> list[Marked]:
        # A comment behind the XML declaration: nothing may stand before that.
        return [marked(self._path(LABEL), plist(), _FIRST_LINE, "<!-- ", " -->")]

    def installed(self) -> str | None:
        return next((path for path in (self._path(LABEL), self._path(_BREW)) if os.path.exists(path)), None)

    @property
    def _label(self) -> str:
        path = self.installed()
        return LABEL if path is None else os.path.basename(path).removesuffix(".plist")

    def is_enabled(self) -> bool:
        return self.installed() is not None

    def serves(self) -> bool:
        return self.is_enabled()

    def check(self) -> None:
        if shutil.which("launchctl") is None:
            raise NoManager("there is no launchctl here", NEXT_WITHOUT)
        if os.path.exists(self._path(_BREW)) and not os.path.exists(self._path(LABEL)):
            raise NoManager(
                "Homebrew has installed it as a service already",
                "brew services restart agent-mesh; or, to change over: brew services stop agent-mesh",
            )
        self._domain()

    def enable(self) -> list[str]:
        self._unload()  # what is loaded is what was there when it was loaded
        return [self._must("enable", self._target()), self._load()]

    def disable(self) -> list[str]:
        return [f"launchctl bootout {self._target()}"] if self._unload() else []

    def _loaded(self) -> bool:
        return self._run("print", self._target()).returncode == 0

    def _load(self) -> str:
        return self._must("bootstrap", self._domain(), self.installed() or self._path(LABEL))

    def _unload(self) -> bool:
        """Whether it was loaded. It is ended, and killed if it takes longer than its plist allows."""
        if not self._loaded():
            return False
        # It may return before all is over, with an error that only says so; and until then nothing can be loaded.
        self._run("bootout", self._target())
        if not _within(_ENDING, lambda: not self._loaded()):
            raise NoManager(f"launchd does not end {self._label}", f"launchctl print {self._target()}")
        return True

    def forget(self) -> None:
        """Nothing is left: `bootout` was told the label."""

    def start(self) -> None:
        self._kick()

    def restart(self) -> None:
        self._kick("-k")

    def _settled(self) -> bool:
        return answers() or self.state().pid is None

    def _kick(self, *options: str) -> None:
        if not self._loaded():
            self._load()
            options = ()  # that starts it
        elif not options and self.state().pid is not None:
            # It is there, or on its way to its end: then it is started when it has ended.
            _within(_STARTING, self._settled)
        if options or self.state().pid is None:
            done = self._run("kickstart", *options, self._target())
            if done.returncode:
                why = one_line(done.stderr.strip() or f"exit {done.returncode}")
                raise ServiceDown(f"launchd did not start {self._label}: {why}", f"{LOG}; then: meshctl service start")
        # There is a process now, and that is all that launchd waits for.
        _within(_STARTING, self._settled)
        if not answers():
            state = self.state()
            what = "does not answer" if state.pid else f"has ended{f' ({state.result})' if state.result else ''}"
            raise ServiceDown(
                f"launchd has started {self._label}, and it {what}", f"{LOG}; then: meshctl service start"
            )

    def stop(self) -> None:
        """Unloaded, until the next login or `start`. One that ended by itself, with 0, launchd leaves alone."""
        if self.state().pid is not None:
            self._unload()

    def state(self) -> State:
        done = self._run("print", self._target())
        facts = dict(re.findall(r"^\t([a-z ]+) = (.*)$", done.stdout, re.MULTILINE)) if done.returncode == 0 else {}
        pid, runs = facts.get("pid", ""), facts.get("runs", "")
        return State(
            active="active" if facts.get("state") == "running" else "inactive",
            pid=int(pid) if pid.isdigit() else None,
            enabled=self.is_enabled(),
            restarts=max(0, int(runs) - 1) if runs.isdigit() else None,
            said="",
            result=_ended(facts.get("last exit code", "")),
        )

    def lasting(self) -> dict[str, Any]:
        return {"lasts": False, "how": "an agent of launchd ends with the login", "command": None}

    def last(self) -> None:
        raise NoManager("launchd has no linger: an agent of launchd ends with the login", NEXT_WITHOUT)

    # --- launchctl ---

    def _domain(self) -> str:
        """Where this user's agents live: with the desktop's login, or without one. Raises `NoManager`."""
        for domain in (f"gui/{os.getuid()}", f"user/{os.getuid()}"):
            if self._run("print", domain).returncode == 0:
                return domain
        raise NoManager("launchd has no session for this user", f"log in, then repeat; {NEXT_WITHOUT}")

    def _target(self) -> str:
        return f"{self._domain()}/{self._label}"

    def _must(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode:
            why = one_line(done.stderr.strip() or f"exit {done.returncode}")
            raise NoManager(f"launchctl {' '.join(arguments)} failed: {why}", f"launchctl print {self._target()}")
        return f"launchctl {' '.join(arguments)}"

    @staticmethod
    def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["launchctl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoManager(f"cannot run launchctl: {error}", NEXT_WITHOUT) from None


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it becomes true in that time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(_PAUSE)
    return True


def _ended(code: str) -> str:
    """As in `exit code 1`; empty if that was no failure, or if it has not ended yet, which launchd says in words."""
    return f"exit code {code}" if code.partition(":")[0].isdigit() and code != "0" else ""


def plist() -> str:
    """The agent's property list, with the absolute paths of this installation."""
    values = {"@PYTHON@": sys.executable, "@OUT@": f"{paths.daemon_log().removesuffix('.log')}.out"}
    made = _filled(plistlib.loads(shipped(f"launchd/{LABEL}.plist")), values)
    try:
        return plistlib.dumps(made, sort_keys=False).decode()
    except ValueError:  # a control character, or a byte that is no text
        raise NoManager(f"a path does not fit into a property list: {sorted(values.values())}", NEXT_WITHOUT) from None


def _filled(item: Any, values: dict[str, str]) -> Any:
    """The same, with each placeholder replaced."""
    if isinstance(item, dict):
        return {key: _filled(value, values) for key, value in item.items()}
    if isinstance(item, list):
        return [_filled(value, values) for value in item]
    return values.get(item, item) if isinstance(item, str) else item
