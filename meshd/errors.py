"""Every error that a user can meet, on one page.

    MeshError                     kind               exit
    ├─ UsageError                 usage              2    bad input; nothing happened
    ├─ Denied                     denied             1    the rate gate said no
    ├─ TimedOut                   timeout            1    nobody answered in time
    ├─ Lagged                     lagged             1    a subscriber did not keep up, and was cut
    ├─ NotFound                   not_found          5    no such agent or message
    ├─ NotAllowed                 not_allowed        7    another daemon holds the name, or another user asks
    ├─ Full                       full               1    a bound of ours was met (pending entries, disk)
    ├─ Unreadable                 unreadable         1    a state file is damaged, or newer than we are; it is as it was
    ├─ ConfigError                config             78   the daemon cannot start with this configuration
    │  └─ NotReloaded             config             1    the one that is read again is wrong; the old one is kept
    ├─ AlreadyRunning             already_running    0    another daemon holds the lock
    ├─ Stopping                   stopping           4    the daemon was stopped in mid-call
    └─ StoreError                 store_error        4    the store answered, and refused
       ├─ StoreDown               store_down         4    no answer; nothing was written
       ├─ StoreBusy               store_busy         4    the store says try again (LOADING, OOM, READONLY …)
       └─ OutcomeUnknown          outcome_unknown    4    it may or may not have been written

`kind` is stable: programs match on it. The message says what happened; the hint says what to do next.
Neither ever holds a password.
"""

from __future__ import annotations

from typing import Any, ClassVar


class MeshError(Exception):
    """Root of the tree. `data` holds facts for programs, JSON values only."""

    kind: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    rpc_code: ClassVar[int] = -32000
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, hint: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data

    def to_rpc(self) -> dict[str, Any]:
        """The JSON-RPC error object: `{code, message, data:{kind, hint, retryable, exit_code, …}}`."""
        return {
            "code": self.rpc_code,
            "message": self.message,
            "data": {
                "kind": self.kind,
                "hint": self.hint,
                "retryable": self.retryable,
                "exit_code": self.exit_code,
                **self.data,
            },
        }


class UsageError(MeshError):
    kind = "usage"
    exit_code = 2
    rpc_code = -32602


class MethodNotFound(UsageError):
    kind = "method_not_found"
    rpc_code = -32601


class Denied(MeshError):
    kind = "denied"
    retryable = True


class TimedOut(MeshError):
    kind = "timeout"
    retryable = True


class Lagged(MeshError):
    kind = "lagged"
    retryable = True


class NotFound(MeshError):
    kind = "not_found"
    exit_code = 5


class NotAllowed(MeshError):
    kind = "not_allowed"
    exit_code = 7


class Full(MeshError):
    kind = "full"
    retryable = True


class Unreadable(MeshError):
    kind = "unreadable"


class ConfigError(MeshError):
    kind = "config"
    exit_code = 78


class NotReloaded(ConfigError):
    exit_code = 1


class AlreadyRunning(MeshError):
    kind = "already_running"
    exit_code = 0


class StoreError(MeshError):
    kind = "store_error"
    exit_code = 4


class StoreDown(StoreError):
    kind = "store_down"
    retryable = True


class StoreBusy(StoreError):
    kind = "store_busy"
    retryable = True


class Stopping(MeshError):
    kind = "stopping"
    exit_code = 4
    retryable = True


class OutcomeUnknown(StoreError):
    kind = "outcome_unknown"
    retryable = True
