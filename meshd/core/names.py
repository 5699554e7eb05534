"""Names of agents, ids of messages, and the store's key names, all made from one prefix."""

from __future__ import annotations

import re
import secrets

from meshd.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_NONCE = re.compile(r"[0-9a-f]{32}")

EVERYONE = "*"


def is_name(text: str) -> bool:
    """Whether the whole text is an agent's name (a trailing newline is not part of one)."""
    return _NAME.fullmatch(text) is not None


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def is_nonce(text: str) -> bool:
    return _NONCE.fullmatch(text) is not None


def new_id() -> str:
    """A fresh message id or nonce: 32 lowercase hex digits."""
    return secrets.token_hex(16)


def check_name(text: str, what: str = "name") -> str:
    """The name itself, or `UsageError` saying what is wrong with it."""
    if is_name(text):
        return text
    if text == EVERYONE:
        raise UsageError(f"'*' is not an agent's {what}", "to reach every agent: meshctl broadcast MESSAGE")
    if not text:
        why = "it is empty"
    elif len(text) > 64:
        why = f"it has {len(text)} characters"
    else:
        bad = next(c for c in text if not _NAME.fullmatch(c))
        why = f"it contains {bad!a}"
    raise UsageError(f"not an agent's {what}: {why}", "a name is 1 to 64 characters of A-Z a-z 0-9 _ -", parameter=what)


def check_id(text: str, what: str = "id") -> str:
    """The id itself, or `UsageError` naming the parameter."""
    if not is_id(text):
        raise UsageError(f"--{what} is not a message id", "an id is 1 to 64 characters of A-Z a-z 0-9 _ . : -")
    return text


def check_nonce(text: str) -> str:
    """The nonce itself, or `UsageError`: a request's id is part of a key's name."""
    if not is_nonce(text):
        raise UsageError("--id is not a request's id", "it is 32 lowercase hex digits")
    return text


class Keys:
    """Key names in the store. Every key the project touches is made here."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.group = f"{prefix}:group"
        self.broadcasts = f"{prefix}:all"
        self.audit = f"{prefix}:gate:audit"
        self.presence = f"{prefix}:presence"
        self.registry_pattern = f"{prefix}:registry:*"

    def inbox(self, name: str) -> str:
        return f"{self.prefix}:to_{name}"

    def pong(self, nonce: str) -> str:
        return f"{self.prefix}:pong:{nonce}"

    def reply(self, nonce: str) -> str:
        return f"{self.prefix}:reply:{nonce}"

    def asked(self, nonce: str) -> str:
        """How a request of ours stands: `waits ASKER`, `taken ASKER REPLY-ID` or `late ASKER`."""
        return f"{self.prefix}:asked:{nonce}"

    def taken(self, nonce: str) -> str:
        """The news for those who replied: whose reply has reached the asker."""
        return f"{self.prefix}:taken:{nonce}"

    def rate(self, sender: str, target: str) -> str:
        return f"{self.prefix}:gate:rate:{sender}->{target}"

    def registry(self, name: str) -> str:
        return f"{self.prefix}:registry:{name}"

    def lease(self, name: str) -> str:
        return f"{self.prefix}:lease:{name}"

    def read(self, name: str) -> str:
        """How far the name was read, wherever it was hosted last."""
        return f"{self.prefix}:read:{name}"

    def left(self, name: str) -> str:
        """Unread mail of the name that only its last holder's disk still had, on its way to the next holder."""
        return f"{self.prefix}:left:{name}"

    def dedupe(self, message_id: str) -> str:
        return f"{self.prefix}:id:{message_id}"

    def remembered(self, incarnation: str) -> str:
        """The ids by which this sender's repetitions are recognised, oldest first."""
        return f"{self.prefix}:ids:{incarnation}"

    def count(self, incarnation: str, sender: str, target: str) -> str:
        return f"{self.prefix}:count:{incarnation}:{sender}->{target}"

    def registered_name(self, key: bytes) -> str | None:
        """The name in a registry key, or None if a stranger's key only looks like one."""
        name = key.decode("utf-8", "replace").removeprefix(f"{self.prefix}:registry:")
        return name if is_name(name) else None

    def reply_nonce(self, key: str) -> str | None:
        """The nonce, only if the key is exactly a reply key: a reply is never written anywhere else."""
        nonce = key.removeprefix(f"{self.prefix}:reply:")
        return nonce if nonce != key and is_nonce(nonce) else None
