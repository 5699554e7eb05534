"""The configuration that is in force, and how it is read again."""

from __future__ import annotations

import logging

import msgspec

from meshd import settings
from meshd.errors import ConfigError, NotReloaded
from meshd.observing.events import EventHub
from meshd.settings import RESTART_ONLY, Settings

log = logging.getLogger("meshd")


class Configuration:
    """`current` is what holds now: whoever uses it asks each time."""

    def __init__(self, first: Settings, events: EventHub) -> None:
        self.current = first
        self._events = events
        logging.getLogger().setLevel(first.log_level.upper())

    def reload(self) -> str:
        """Read the configuration again. What was done, in a sentence. Raises `NotReloaded`: the old one is kept."""
        try:
            fresh = settings.load()
        except ConfigError as error:
            log.error("configuration not changed: %s", error.message)
            self._events.publish("config.refused", why=error.message)
            raise NotReloaded(f"not changed: {error.message}", error.hint) from None
        fixed = {key: getattr(self.current, key) for key in RESTART_ONLY}
        waiting = [key for key, value in fixed.items() if getattr(fresh, key) != value]
        self.current = msgspec.structs.replace(fresh, **fixed)
        logging.getLogger().setLevel(fresh.log_level.upper())
        said = "configuration read again"
        if waiting:
            said += f"; {', '.join(waiting)} changes at the next start"
        log.info(said)
        self._events.publish("config.reloaded", waiting=waiting)
        return said
