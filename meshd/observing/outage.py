"""A trouble that lasts, in the log: one line when it begins, one when it ends, however often it is met in between."""

from __future__ import annotations

import asyncio
import logging
import time

# Seconds for which a trouble must stay away to be over, once it has come back; longer than any pause between tries.
STEADY = 10.0
_KNOWN = 100


class Outage:
    """Used from the event loop only.

    The end is said at once; of a trouble that comes and goes only when it has stayed away for `STEADY` seconds, and
    so always with `patient`, where many meet the same trouble and one of them is through before the others.
    """

    def __init__(self, log: logging.Logger, level: int = logging.WARNING, *, patient: bool = False) -> None:
        self._log = log
        self._level = level
        self._patient = patient
        self._since: float | None = None
        self._ended = float("-inf")
        self._comes_and_goes = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lasts(self) -> bool:
        return self._since is not None

    def begin(self, text: str, *, exc_info: bool = False, extra: dict[str, str] | None = None) -> None:
        """It was met. With its first words it is known; others that follow are for whoever debugs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._since is not None:
            self._log.debug("%s", text, extra=extra)
            return
        self._since = time.monotonic()
        self._comes_and_goes = self._since - self._ended < STEADY
        again = " (it comes and goes)" if self._comes_and_goes else ""
        self._log.log(self._level, "%s%s", text, again, exc_info=exc_info, extra=extra)

    def end(self, text: str, more: str = "", *, extra: dict[str, str] | None = None) -> None:
        """It is over, as far as the caller can tell: `text`, how long it was, and `more`."""
        if self._since is None or self._timer is not None:
            return
        if self._patient or self._comes_and_goes:
            self._timer = asyncio.get_running_loop().call_later(STEADY, self._say_end, text, more, extra)
        else:
            self._say_end(text, more, extra)

    def _say_end(self, text: str, more: str, extra: dict[str, str] | None) -> None:
        assert self._since is not None
        self._timer = None
        self._ended = time.monotonic()
        lasted = self._ended - self._since
        self._since = None
        self._log.info("%s after %.1f s%s", text, lasted, f": {more}" if more else "", extra=extra)


class Troubles:
    """Troubles of agents, each known by its text: one that all of them have is begun and ended once, too."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._of: dict[str, str] = {}  # agent -> the text of what it has now
        self._lasting: dict[str, tuple[Outage, set[str]]] = {}

    def tell(self, agent: str, text: str | None, *, exc_info: bool = False) -> None:
        """This is what the agent suffers from now; None: it is well."""
        before = self._of.get(agent)
        if before is not None and before != text:
            del self._of[agent]
            outage, suffering = self._lasting[before]
            suffering.discard(agent)
            if not suffering:
                outage.end(f"over: {before}")
        if text is not None:
            self._of[agent] = text
            if len(self._lasting) > _KNOWN:
                self._lasting = {key: found for key, found in self._lasting.items() if found[1]}
            outage, suffering = self._lasting.setdefault(text, (Outage(self._log, logging.ERROR), set()))
            suffering.add(agent)
            outage.begin(f"{agent}: {text}", exc_info=exc_info, extra={"agent": agent})
