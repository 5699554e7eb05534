"""The scripts that run in the store: a Lua file for each step that must be whole or not at all.

Each has a typed function in sending.py, answers.py, leases.py … that gives its keys and arguments, to be called by
`Commands.script`.
"""

from __future__ import annotations

from typing import Any

from meshd.store.scripts.answers import ANSWER, HANG_UP, TAKE, WITHDRAW
from meshd.store.scripts.latest import LATEST
from meshd.store.scripts.leases import COUNTS, HOST, POSITION, RENEW
from meshd.store.scripts.pinging import PING
from meshd.store.scripts.places import PLACES
from meshd.store.scripts.script import Script
from meshd.store.scripts.sending import SEND
from meshd.store.scripts.who import WHO

ALL: tuple[Script[Any], ...] = (
    SEND,
    HOST,
    RENEW,
    POSITION,
    COUNTS,
    LATEST,
    PLACES,
    ANSWER,
    TAKE,
    WITHDRAW,
    HANG_UP,
    WHO,
    PING,
)
