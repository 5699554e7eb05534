"""Every error that a user can meet, on one page.

    MeshError                     kind                 exit
    ├─ UsageError                 usage                2    bad input; nothing happened
    │  ├─ MethodNotFound          method_not_found     2    no such method on the control socket
    │  ├─ ParseError              parse                2    a line on the control socket that is not JSON, or too long
    │  └─ InvalidRequest          invalid_request      2    JSON, but not a request
    ├─ Unexpected                 internal             1    a fault of ours; the daemon's log has its traceback
    ├─ Cancelled                  cancelled            1    whoever asked has withdrawn it
    ├─ Interrupted                interrupted          1    over HTTP: the client went, or the server ends
    ├─ Denied                     denied               1    the rate gate said no
    ├─ Busy                       busy                 1    the mailbox is full of what was not received or read
    ├─ TimedOut                   timeout              1    nobody answered in time
    ├─ Lagged                     lagged               1    a subscriber did not keep up, and was cut
    ├─ NotFound                   not_found            5    no such agent or message
    ├─ NotAllowed                 not_allowed          7    another daemon holds the name, or another user asks
    ├─ Full                       full                 1    a bound of ours was met (pending entries, disk)
    ├─ Unreadable                 unreadable           1    a state file is damaged, or newer than we are
    ├─ Unavailable                unavailable          4    this agent's mail cannot be had now
    ├─ ConfigError                config               78   the daemon cannot start with this configuration
    │  └─ NotReloaded             config               1    the one that is read again is wrong; the old one is kept
    ├─ AlreadyRunning             already_running      0    another daemon holds the lock
    ├─ Stopping                   stopping             4    the daemon was stopped in mid-call
    ├─ DaemonDown                 daemon_down          3    no daemon runs, or it cannot be reached or started
    ├─ CannotListen               address              1    `serve --http`: the port is taken, or not ours to take
    ├─ NoManager                  no_service_manager   1    nothing here runs services for this user
    ├─ NotChanged                 not_changed          1    `install`: a client's file is as it was
    └─ StoreError                 store_error          4    the store answered, and refused
       ├─ StoreDown               store_down           4    no answer; nothing was written
       ├─ StoreBusy               store_busy           4    the store says try again (LOADING, OOM, READONLY …)
       └─ OutcomeUnknown          outcome_unknown      4    it may or may not have been written

The classes that only one room raises stand there; whoever raises another one of a kind derives it from these.
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


class ParseError(UsageError):
    kind = "parse"
    rpc_code = -32700


class InvalidRequest(UsageError):
    kind = "invalid_request"
    rpc_code = -32600


class Unexpected(MeshError):
    rpc_code = -32603


class Cancelled(MeshError):
    kind = "cancelled"
    rpc_code = -32800


class Denied(MeshError):
    kind = "denied"
    retryable = True


class Busy(MeshError):
    kind = "busy"
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


class Unavailable(MeshError):
    kind = "unavailable"
    exit_code = 4
    retryable = True


class ConfigError(MeshError):
    kind = "config"
    exit_code = 78


class NotReloaded(ConfigError):
    exit_code = 1


class AlreadyRunning(MeshError):
    kind = "already_running"
    exit_code = 0


class DaemonDown(MeshError):
    kind = "daemon_down"
    exit_code = 3


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
