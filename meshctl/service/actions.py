"""What `meshctl service` does: install, uninstall, start, stop, restart."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from meshctl.client import write
from meshctl.service.contract import Manager, NoManager, ServiceDown
from meshctl.service.handover import by_hand, end, listens, other_socket, stop_by_hand
from meshctl.service.marked import EDITED, FOREIGN, MASKED, MISSING, SAME
from meshctl.starting import alone
from meshd import paths
from meshd.core.text import one_line
from meshd.errors import TimedOut
from meshd.settings import Settings

STOP_TIMEOUT = 45.0


class Told:
    """What was done, said at once or, with --json, in one document at the end."""

    def __init__(self, manager: str, action: str, *, silent: bool) -> None:
        self.steps: list[dict[str, Any]] = []
        self.facts: dict[str, Any] = {"manager": manager, "action": action}
        self._silent = silent

    def step(self, verb: str, what: str, backup: str | None = None) -> None:
        self.steps.append({"did": verb, "what": what, "backup": backup})
        self.say(f"{verb} {what}" + (f" (what was there is now {backup})" if backup else ""))

    def say(self, text: str) -> None:
        if not self._silent:
            write(1, "".join(f"{one_line(line)}\n" for line in text.split("\n")))

    def note(self, text: str) -> None:
        self.facts.setdefault("notes", []).append(text)
        self.say(text)

    @staticmethod
    def out(text: str) -> None:
        write(1, text)

    def answer(self) -> dict[str, Any]:
        return {**self.facts, "steps": self.steps}


def install(manager: Manager, told: Told, *, print_only: bool, force: bool, linger: bool) -> None:
    """Write the files, have the service start at login, and start it. Raises `NotChanged` before anything is done."""
    if print_only:
        _print(manager, told)
        return
    manager.check()
    files = manager.files()
    for file in files:
        file.refuse_if_masked()
        if not force:
            file.refuse_if_edited("install")
    changed = False
    for file in files:
        if file.state() != SAME:
            told.step("wrote", file.path, file.put())
            changed = True
    _bring_up(manager, told, changed=changed)
    if linger and not manager.lasting()["lasts"]:
        manager.last()
        told.step("ran", manager.lasting()["command"])
    _notes(manager, told)


def _bring_up(manager: Manager, told: Told, *, changed: bool) -> None:
    """Have it start at login, and run now: for the first time, or anew if its files have changed."""
    with alone():
        before = manager.state().pid
        if before is None:
            _hand_over(told)
        if changed or not manager.is_enabled():
            for command in manager.enable():
                told.step("ran", command)
        state = manager.state()
        if before is None or state.pid is None or not listens():
            manager.start()  # what launchd has just been told to start is not ready yet
        if before is None:
            told.step("started", _running(manager))
        elif state.pid == before and (changed or state.stale):
            manager.restart()
            told.step("restarted", f"{_running(manager)}, as the new files say")
        elif not told.steps:
            told.say("installed already, and running")


def uninstall(manager: Manager, told: Told, *, print_only: bool, force: bool) -> None:
    """Stop it, have it start no more, and remove the files that are ours. `NotChanged` comes before all that."""
    ours = [file for file in manager.files() if file.state() not in (MISSING, MASKED)]
    edited = [file for file in ours if file.state() in (EDITED, FOREIGN)]
    if print_only:
        told.say("\n".join(f"would remove {file.path}" for file in ours) or "not installed")
        return
    if not force:
        for file in edited:
            file.refuse_if_edited("uninstall")
    if not ours and not manager.is_enabled():
        told.say("not installed")
        return
    for file in ours:
        file.refuse_if_fixed()
    with alone():  # a command that finds no daemon would start the service again meanwhile
        try:
            manager.check()
        except NoManager as error:
            told.note(f"only the files are removed: {error.message}")
        else:
            _stop(manager, told)
            for command in manager.disable():
                told.step("ran", command)
        for file in ours:
            told.step("removed", file.path, file.remove())
        manager.forget()
    told.note(f"messages, inboxes and settings stay: {paths.state_dir()}")


def start(manager: Manager, told: Told) -> None:
    """Start it. A daemon that was started by hand ends first, and its clients go on with the service."""
    _must_be_installed(manager)
    with alone():
        if manager.state().running and listens():
            told.say("running already")
            return
        _hand_over(told)
        manager.start()
    told.step("started", _running(manager))


def stop(manager: Manager, told: Told) -> None:
    """Stop it in order: who waits for an answer is told, the store is closed last. By force if it hangs."""
    if manager.state().pid is None:
        if manager.installed() is None:
            told.say("not installed")
            return
        if (pid := by_hand(None)) is not None:  # the path of the socket may be its own, and would go
            told.say(f"the service does not run; a daemon that was started by hand does (pid {pid})")
            told.say("  next: meshctl down")
            return
    with alone():  # who comes meanwhile starts it again, and not in the middle of its end
        _stop(manager, told)


def _stop(manager: Manager, told: Told) -> None:
    manager.stop()
    if manager.state().pid is not None:
        raise TimedOut("meshd is still running", "meshctl service status")
    told.step("stopped", "meshd")


def restart(manager: Manager, told: Told) -> None:
    """Another daemon in the place of the running one: nobody is refused, and who waits for an answer gets it later."""
    _must_be_installed(manager)
    with alone():
        _hand_over(told)
        if not manager.keeps_socket:
            with contextlib.suppress(OSError):  # the manager ends what does not answer
                end(STOP_TIMEOUT, returning=True)
        manager.restart()
    told.step("restarted", _running(manager))


def _hand_over(told: Told) -> None:
    pid = stop_by_hand()
    if pid is not None:
        told.step("ended", f"the daemon that was started by hand (pid {pid}); its agents go on with the service")


def _running(manager: Manager) -> str:
    """What runs now. Raises `ServiceDown` if the commands of this shell cannot reach it."""
    if not listens():
        raise ServiceDown(
            f"{manager.name} has started it, and nothing listens on {paths.socket_path()}",
            other_socket() or "meshctl doctor",
        )
    return f"meshd (pid {manager.state().pid})"


def _must_be_installed(manager: Manager) -> None:
    manager.check()
    if manager.installed() is None:
        raise ServiceDown("the service is not installed", "meshctl service install")


def _print(manager: Manager, told: Told) -> None:
    files = manager.files()
    told.facts["files"] = [{"path": file.path, "text": file.text, "state": file.state()} for file in files]
    for file in files:
        told.say(f"# {file.path} ({file.state()})\n{file.text}")
    if not files:
        told.say(f"the package's own file is used: {manager.installed()}")


def _notes(manager: Manager, told: Told) -> None:
    lasting = manager.lasting()
    told.facts["lasting"] = lasting
    if lasting["lasts"]:
        told.note("linger is on: it starts with the machine and goes on after logout")
    elif lasting["command"]:
        word = "off" if lasting["lasts"] is False else "unknown here"
        told.note(f"linger is {word}: it ends at your last logout; to have it go on: {lasting['command']}")
    else:
        told.note(lasting["how"])
    if f"{os.sep}.cache{os.sep}" in sys.prefix:
        told.note(
            f"{sys.prefix} is a cache, as uvx and pipx run make one: when it is cleaned, the service fails; "
            "better: pipx install or uv tool install, and then its meshctl service install"
        )
    here = [f"AGENT_MESH_{key.upper()}" for key in Settings.__struct_fields__ if key != "name"]
    if found := [name for name in here if os.environ.get(name)]:
        told.note(
            f"{', '.join(found)} of this shell {'is' if len(found) == 1 else 'are'} not the service's: "
            f"settings for it go into {paths.config_file()}; then: meshctl service restart"
        )
